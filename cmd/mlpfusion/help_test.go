package main

import (
	"regexp"
	"testing"

	"github.com/spf13/pflag"
)

// Every flag is in its command's help, once, and a long list has headings.
func TestHelpOfFlags(t *testing.T) {
	headings := regexp.MustCompile(`(?m)^[A-Z][^:\n]*:$`)
	for _, c := range new(app).root().Commands() {
		help, flags := c.UsageString(), 0
		c.LocalFlags().VisitAll(func(f *pflag.Flag) {
			flags++
			if n := len(regexp.MustCompile(`(?m)^ +(-\w, )?--`+f.Name+`\b( |$)`).FindAllString(help, -1)); n != 1 {
				t.Errorf("%s: --%s is there %d times", c.Name(), f.Name, n)
			}
		})
		const list = 12 // still read at a glance
		if n := len(headings.FindAllString(help, -1)); flags > list && n < 5 {
			t.Errorf("%s: %d flags under the headings %q", c.Name(), flags, headings.FindAllString(help, -1))
		}
	}
}

// Every command has examples, and says what its arguments are.
func TestHelpOfCommands(t *testing.T) {
	for _, c := range new(app).root().Commands() {
		if c.Name() != "demo" && c.Name() != "help" && c.Name() != "completion" && (c.Example == "" || c.Long == "") {
			t.Errorf("%s: expected a description and examples", c.Name())
		}
	}
}
