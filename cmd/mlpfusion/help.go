package main

import (
	"fmt"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// helpWidth is the column at which the help of flags is broken.
const helpWidth = 100

// usage is cobra's template with broken lines and, where given, other text in
// place of the list of a command's own flags.
func usage(flags string) string {
	const own, inherited = "{{.LocalFlags.FlagUsages |", "{{.InheritedFlags.FlagUsages |"
	text := (&cobra.Command{}).UsageTemplate()
	text = strings.Replace(text, "{{if .Runnable}}", "{{if and .Runnable .HasParent}}", 1)
	if flags != "" {
		text = strings.Replace(text, "Flags:\n"+own+" trimTrailingWhitespaces}}", flags, 1)
	}
	for _, list := range []string{own, inherited} {
		text = strings.Replace(text, list, strings.Replace(list, "FlagUsages", fmt.Sprintf("FlagUsagesWrapped %d", helpWidth), 1), 1)
	}
	return text
}

// section is a heading in a command's help and the names of the flags under it, the
// most used first.
type section struct{ title, flags string }

// columnSection are the flags for how examples are read.
var columnSection = section{"How the data is read", "max-length text label text-pair regression text-to-text loss chat-template"}

// arrange shows a command's flags under headings in place of one list.
func arrange(c *cobra.Command, sections ...section) {
	c.InitDefaultHelpFlag()
	var b strings.Builder
	for _, s := range sections {
		f := pflag.NewFlagSet(s.title, pflag.ContinueOnError)
		f.SortFlags = false
		for name := range strings.FieldsSeq(s.flags) {
			f.AddFlag(c.Flags().Lookup(name))
		}
		fmt.Fprintf(&b, "%s:\n%s\n", s.title, f.FlagUsagesWrapped(helpWidth))
	}
	c.SetUsageTemplate(usage(strings.TrimRight(b.String(), "\n")))
}
