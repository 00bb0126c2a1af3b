//go:build !linux

package disk

import (
	"errors"
	"os"
)

func exchange(_, _ string) error { return errors.ErrUnsupported }

func nameless(string) (*os.File, error) { return nil, errors.ErrUnsupported }
