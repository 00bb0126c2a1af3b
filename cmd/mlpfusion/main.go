// Command mlpfusion shrinks the MLP blocks of pre-trained transformers,
// fine-tunes and evaluates the result, and writes what plain transformers loads.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"runtime"
	"runtime/debug"
	"strconv"
	"strings"
	"syscall"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/spf13/cobra"
	_ "golang.org/x/crypto/x509roots/fallback" // for images that hold nothing but this file

	"mlpfusion/internal/disk"
	"mlpfusion/kernel"
)

func main() { os.Exit(run()) }

// Exit codes: 1 for bad input and failures, 2 for wrong usage, and the shell's own for
// an interrupt.
const (
	exitFailure     = 1
	exitUsage       = 2
	exitInterrupted = 130
)

func run() int {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	go func() {
		<-ctx.Done()
		stop() // a second Ctrl-C ends the program at once
	}()
	a := &app{ctx: ctx}
	command, err := a.root().ExecuteC()
	a.ui.close()
	switch {
	case err == nil:
		return 0
	case errors.Is(err, context.Canceled):
		fmt.Fprintln(os.Stderr, "mlpfusion: stopped"+a.goesOn())
		return exitInterrupted
	}
	goesOn := ""
	if disk.Full(err) {
		goesOn = a.goesOn()
	}
	fmt.Fprintf(os.Stderr, "mlpfusion: %s%s\n", sentence(err.Error()), goesOn)
	if errors.As(err, &usageError{}) || !a.started {
		fmt.Fprintf(os.Stderr, "Run '%s --help' for usage.\n", command.CommandPath())
		return exitUsage
	}
	return exitFailure
}

// sentence is an error's text on one line. What names of files and keys may hold and a
// terminal would obey is written as Go writes it, and what is too long is cut.
func sentence(text string) string {
	const most = 8 << 10 // twice the longest path
	if len(text) > most {
		text = text[:most/2] + " … " + text[len(text)-most/2:]
	}
	var b strings.Builder
	for len(text) > 0 {
		r, n := utf8.DecodeRuneInString(text)
		switch {
		case r == '\n': // of errors that were joined
			b.WriteString("; ")
		case r == utf8.RuneError && n == 1, unicode.IsControl(r):
			quoted := strconv.Quote(text[:n])
			b.WriteString(quoted[1 : len(quoted)-1])
		default:
			b.WriteString(text[:n])
		}
		text = text[n:]
	}
	return b.String()
}

// usageError is a mistake in the command line.
type usageError struct{ error }

// app is what the commands share.
type app struct {
	ctx     context.Context
	ui      ui
	threads int
	seed    uint64
	pool    *kernel.Pool
	started bool // the command line was understood
	// now is the time that chat templates are told; zero: that of the clock.
	now time.Time
	// toldChatML is set once it was said that a model has no chat template.
	toldChatML bool
	adapter    string // the folder of the adapter that MODEL is taken with; "": none
	// kept is the folder that keeps what a stopped run has done, and resume the
	// flag to go on with it, if it takes one.
	kept, resume string
}

// goesOn tells how to go on after an interrupt or on a full disk, when there is
// something to go on with.
func (a *app) goesOn() string {
	if a.kept == "" {
		return ""
	}
	if _, err := os.Stat(a.kept); err != nil {
		return ""
	}
	with := "the same command goes on"
	if a.resume != "" {
		with += " with " + a.resume
	}
	return fmt.Sprintf("; %s keeps what is done, and %s", a.kept, with)
}

func (a *app) root() *cobra.Command {
	root := &cobra.Command{
		Use:   "mlpfusion",
		Short: "Shrink the MLP blocks of transformers, fine-tune them on the CPU, export them",
		Long: `mlpfusion clusters the hidden units of a transformer's MLP blocks and keeps the
centroids (MLP Fusion, arXiv 2307.08941), so that the smaller model's output and
training stay close to the original's. It fine-tunes and evaluates on the CPU,
and exports what plain transformers loads.

MODEL is a Hugging Face directory, a .gguf file, or org/name of the hub.`,
		Example: `  mlpfusion demo
  mlpfusion shrink MODEL shrunk --data messages.csv --text message --label category
  mlpfusion fuse MODEL small --ratio 0.25
  mlpfusion train small tuned --task sst2 --data glue/SST-2 --lr 1e-4 --epochs 1
  mlpfusion eval tuned --task sst2 --data glue/SST-2
  mlpfusion export tuned plain`,
		SilenceUsage:  true,
		SilenceErrors: true,
		Version:       version(),
		Args:          knownCommand, // which only words that name no command reach
		RunE:          func(c *cobra.Command, _ []string) error { return c.Help() },
		PersistentPreRunE: func(*cobra.Command, []string) error {
			if a.threads < 0 {
				return usageError{fmt.Errorf("threads: expected 0 or more, found %d", a.threads)}
			}
			a.started = true
			if err := kernel.CheckISA(); err != nil {
				return err
			}
			a.ui.start()
			// Go counts the processors that this process may use: of a container, its quota.
			if given := runtime.GOMAXPROCS(0); a.threads > given {
				a.ui.say("threads: %d are asked for, %d are what this process is given: more than that wait for each other", a.threads, given)
			}
			if a.threads > 0 {
				runtime.GOMAXPROCS(a.threads)
			}
			a.pool = kernel.NewPool(a.threads)
			return nil
		},
	}
	root.SetFlagErrorFunc(wrongFlag)
	root.SetUsageTemplate(usage(""))
	f := root.PersistentFlags()
	f.BoolVar(&a.ui.json, "json", false, "print the result as JSON on standard output")
	f.BoolVarP(&a.ui.quiet, "quiet", "q", false, "no progress and no messages")
	f.IntVar(&a.threads, "threads", 0, "worker threads (default all that the machine, or a container's quota, gives)")
	f.Uint64Var(&a.seed, "seed", 0, "seed of everything random; results do not depend on the number of threads")
	for _, group := range []struct {
		title    string
		commands []*cobra.Command
	}{
		{"Begin", []*cobra.Command{a.shrinkCommand(), a.demoCommand()}},
		{"Shrink a model", []*cobra.Command{a.fuseCommand(), a.inspectCommand(), a.exportCommand(), a.upcycleCommand()}},
		{"Train it", []*cobra.Command{a.trainCommand(), a.tuneCommand(), a.stepsCommand(), a.mergeCommand()}},
		{"Use it", []*cobra.Command{a.evalCommand(), a.predictCommand(), a.generateCommand(), a.chatCommand(), a.scoreCommand()}},
		{"Compare", []*cobra.Command{a.compareCommand(), a.reportCommand(), a.ntkCommand()}},
	} {
		root.AddGroup(&cobra.Group{ID: group.title, Title: group.title + ":"})
		for _, c := range group.commands {
			c.GroupID = group.title
			root.AddCommand(c)
		}
	}
	root.SetHelpCommandGroupID("Begin")
	root.SetCompletionCommandGroupID("Begin")
	if extra != nil {
		root.AddCommand(extra(root))
	}
	return root
}

// extra makes a command that a build with a tag adds.
var extra func(root *cobra.Command) *cobra.Command

// release is the version of these sources; python/mlpfusion/version.py says the same.
const release = "v0.2.0"

// version says what this program was built of, and what it runs on this machine.
func version() string {
	v := release
	if info, ok := debug.ReadBuildInfo(); ok {
		setting := map[string]string{}
		for _, s := range info.Settings {
			setting[s.Key] = s.Value
		}
		if commit := setting["vcs.revision"]; commit != "" {
			v += " commit " + commit[:min(12, len(commit))]
			if setting["vcs.modified"] == "true" {
				v += ", modified,"
			}
		}
		v += " " + info.GoVersion
	}
	v += " " + runtime.GOOS + "/" + runtime.GOARCH
	fp32, bf16, vector := kernel.Kernels()
	return fmt.Sprintf("%s\nkernels on this machine:\n  fp32    %s\n  bf16    %s\n  vector  %s", v, fp32, bf16, vector)
}
