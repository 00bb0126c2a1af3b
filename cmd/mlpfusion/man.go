//go:build man

package main

import (
	"os"
	"strconv"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/cobra/doc"
)

// With the tag man, by which make dist builds, the program writes its manual pages, dated
// SOURCE_DATE_EPOCH, to a folder. What users get is without the libraries for that.
func init() {
	extra = func(root *cobra.Command) *cobra.Command {
		return &cobra.Command{Use: "man DIR", Hidden: true, Args: cobra.ExactArgs(1), RunE: func(_ *cobra.Command, args []string) error {
			seconds, err := strconv.ParseInt(os.Getenv("SOURCE_DATE_EPOCH"), 10, 64)
			if err != nil {
				return err
			}
			date := time.Unix(seconds, 0).UTC()
			root.DisableAutoGenTag = true
			return doc.GenManTree(root, &doc.GenManHeader{Section: "1", Date: &date, Source: "mlpfusion " + release, Manual: "mlpfusion"}, args[0])
		}}
	}
}
