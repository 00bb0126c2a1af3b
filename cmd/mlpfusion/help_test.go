package main

import (
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// Every flag is in its command's help, once, and a long list has headings.
func TestHelpOfFlags(t *testing.T) {
	headings := regexp.MustCompile(`(?m)^[A-Z][^:\n]*:$`)
	for _, c := range new(app).root().Commands() {
		help, flags := c.UsageString(), 0
		c.LocalFlags().VisitAll(func(f *pflag.Flag) {
			flags++
			if n := len(regexp.MustCompile(`(?m)^ +(-\w, )?--`+f.Name+`( |$)`).FindAllString(help, -1)); n != 1 {
				t.Errorf("%s: --%s is there %d times", c.Name(), f.Name, n)
			}
		})
		const list = 12 // still read at a glance
		if found := headings.FindAllString(help, -1); flags > list && len(found) < 5 {
			t.Errorf("%s: %d flags under the headings %q", c.Name(), flags, found)
		}
	}
}

// TestExamples runs testdata/examples: the examples of all commands' help, save
// demo's, which needs the network. "examples COMMAND [WORD]" runs those of a
// command's that hold the word, after removing their OUT.
func TestExamples(t *testing.T) {
	root := new(app).root()
	var left []string // examples that have not been run
	for _, c := range append(root.Commands(), root) {
		if c.Name() != "demo" {
			left = append(left, examples(c)...)
		}
	}
	run := func(ts *testscript.TestScript, neg bool, args []string) {
		if neg || len(args) < 1 || len(args) > 2 {
			ts.Fatalf("usage: examples COMMAND [WORD]")
		}
		c, _, err := root.Find(args[:1])
		if args[0] == "mlpfusion" {
			c, err = root, nil
		}
		ts.Check(err)
		for _, line := range examples(c) {
			if len(args) == 2 && !strings.Contains(line, args[1]) {
				continue
			}
			left = slices.DeleteFunc(left, func(l string) bool { return l == line })
			_, command, _ := strings.Cut(line, "mlpfusion ")
			words := strings.Fields(command)
			called, _, err := root.Find(words[:1])
			ts.Check(err)
			if at := slices.Index(strings.Fields(called.Use), "OUT"); at > 0 {
				ts.Check(os.RemoveAll(ts.MkAbs(words[at])))
			}
			line, _, _ = strings.Cut(line, " | jq")
			ts.Check(ts.Exec("sh", "-c", line))
		}
	}
	all := func(ts *testscript.TestScript, neg bool, args []string) {
		if len(left) > 0 {
			ts.Fatalf("not run:\n%s", strings.Join(left, "\n"))
		}
	}
	testscript.Run(t, testscript.Params{
		Dir:  "testdata/examples",
		Cmds: map[string]func(*testscript.TestScript, bool, []string){"model": scriptModel, "examples": run, "every-example-ran": all},
		Setup: func(env *testscript.Env) error {
			const methods = "bench/experiments/methods.yaml"
			text, err := os.ReadFile(filepath.Join("../..", methods))
			if err != nil {
				return err
			}
			if err := os.MkdirAll(filepath.Join(env.WorkDir, filepath.Dir(methods)), 0o777); err != nil {
				return err
			}
			if err := os.WriteFile(filepath.Join(env.WorkDir, methods), text, 0o666); err != nil {
				return err
			}
			return writeData(filepath.Join(env.WorkDir, "glue/SST-2"))
		},
	})
}

// examples are the lines of a command's help that show how it is used.
func examples(c *cobra.Command) (lines []string) {
	for line := range strings.Lines(c.Example) {
		if line = strings.TrimSpace(line); line != "mlpfusion demo" {
			lines = append(lines, line)
		}
	}
	return lines
}
