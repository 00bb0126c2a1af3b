package main

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"mlpfusion/internal/choice"
)

// exactly asks for the named arguments and no others.
func exactly(names ...string) cobra.PositionalArgs {
	return func(_ *cobra.Command, args []string) error {
		if len(args) == len(names) {
			return nil
		}
		expected := "no arguments"
		if len(names) > 0 {
			expected = strings.Join(names, " ")
		}
		return usageError{fmt.Errorf("expected %s, found %s", expected, count(len(args), "argument"))}
	}
}

// wrongFlag is the error for a flag that could not be read: what it takes, or the
// one that was probably meant.
func wrongFlag(c *cobra.Command, err error) error {
	var invalid *pflag.InvalidValueError
	if errors.As(err, &invalid) {
		f := invalid.GetFlag()
		takes := map[string]string{"int": "a whole number", "uint": "a whole number of at least 0", "float64": "a number", "bool": "true or false",
			"intSlice": "whole numbers", "uintSlice": "whole numbers of at least 0", "float64Slice": "numbers"}[f.Value.Type()]
		if takes != "" {
			err = fmt.Errorf("%s: expected %s, found %q", f.Name, takes, invalid.GetValue())
		}
	}
	var unknown *pflag.NotExistError
	if !errors.As(err, &unknown) {
		return usageError{err}
	}
	var names []string
	c.Flags().VisitAll(func(f *pflag.Flag) { names = append(names, f.Name) })
	if meant := choice.Nearest(unknown.GetSpecifiedName(), names); meant != "" {
		err = fmt.Errorf("%w: did you mean --%s?", err, meant)
	}
	return usageError{err}
}

// knownCommand refuses a word that no command has for its name.
func knownCommand(c *cobra.Command, words []string) error {
	if len(words) == 0 {
		return nil
	}
	var names []string
	for _, sub := range c.Commands() {
		names = append(names, sub.Name())
	}
	err := fmt.Errorf("unknown command %q", words[0])
	if meant := choice.Nearest(words[0], names); meant != "" {
		err = fmt.Errorf("%w: did you mean %s?", err, meant)
	}
	return usageError{err}
}

// atLeast refuses flags that are given with a number below the least.
func atLeast(f *pflag.FlagSet, least float64, names ...string) error {
	for _, name := range names {
		if v, given := number(f, name); given && !(v >= least) {
			return usageError{fmt.Errorf("%s: expected at least %g, found %g", name, least, v)}
		}
	}
	return nil
}

// above0 refuses flags that are given with a number that is not above 0.
func above0(f *pflag.FlagSet, names ...string) error {
	for _, name := range names {
		if v, given := number(f, name); given && !(v > 0) {
			return usageError{fmt.Errorf("%s: expected a number above 0, found %g", name, v)}
		}
	}
	return nil
}

func number(f *pflag.FlagSet, name string) (v float64, given bool) {
	v, err := strconv.ParseFloat(f.Lookup(name).Value.String(), 64)
	if err != nil {
		panic(err) // a flag of another type
	}
	return v, f.Changed(name)
}

// parseBytes reads an amount of memory such as 8GB, 1.5GB or 512MB.
func parseBytes(s string) (int64, error) {
	text := strings.TrimSpace(s)
	for _, unit := range []struct {
		name string
		size float64
	}{{"GB", 1 << 30}, {"MB", 1 << 20}} {
		if n, ok := strings.CutSuffix(text, unit.name); ok {
			v, err := strconv.ParseFloat(strings.TrimSpace(n), 64)
			if err == nil && v > 0 && v < 1<<20 {
				return int64(v * unit.size), nil
			}
		}
	}
	return 0, fmt.Errorf("expected an amount such as 8GB or 512MB, found %q", s)
}

// condition says when a flag means something.
type condition struct {
	flag string
	met  bool
	with string // what it needs, in words
}

// onlyWith refuses flags that are given and would change nothing.
func onlyWith(f *pflag.FlagSet, conditions []condition) error {
	for _, c := range conditions {
		if f.Changed(c.flag) && !c.met {
			return usageError{fmt.Errorf("%s: expected with %s only", c.flag, c.with)}
		}
	}
	return nil
}

// apart refuses an output that is one of the directories it is made of: what
// replaces it would take the place of the only copy.
func apart(out string, sources ...string) error {
	place, err := os.Stat(out)
	if err != nil {
		return nil // a new one
	}
	for _, s := range sources {
		if info, err := os.Stat(s); err == nil && os.SameFile(place, info) {
			return fmt.Errorf("%s: expected another directory than %s, which it is made of", out, strings.TrimSuffix(s, "/"))
		}
	}
	return nil
}
