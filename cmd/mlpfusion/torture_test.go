package main

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"maps"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"mlpfusion/internal/disk"
)

var (
	torture     = flag.Int("torture", 0, "how many times TestTorture does each thing to each command; 0: not at all")
	tortureOnly = flag.String("torture-only", "", "the commands that TestTorture runs, by a regular expression")
	tortureInto = flag.String("torture-into", "", "the file that TestTorture writes its totals to")
)

// faultVariable tells the program, when a test runs it, which of its operations on
// files fails: KIND NUMBER.
const faultVariable = "MLPFUSION_TEST_FAULT"

// The kinds of faults that happen at an operation of a given number.
const (
	faultList  = "list"  // none: operations are listed in a file instead of numbered
	faultFail  = "fail"  // it fails
	faultShort = "short" // it reads or writes half and fails
	faultFull  = "full"  // it fails, and so does all that needs room from then on
	faultGone  = "gone"  // it fails, and so does everything from then on
	faultCut   = "cut"   // the file that is read was cut to half
	faultKill  = "kill"  // the process is killed
	faultHalf  = "half"  // the process is killed when it has written half
)

// setFault makes an operation fail as the environment says.
func setFault() {
	kind, number, ok := strings.Cut(os.Getenv(faultVariable), " ")
	if !ok {
		return
	}
	at, _ := strconv.Atoi(number) // of a list it is the file's name
	var mu sync.Mutex
	n := -1
	die := func() {
		if p, err := os.FindProcess(os.Getpid()); err == nil {
			_ = p.Kill()
		}
		select {}
	}
	disk.Fault = func(op disk.Op, path string, size int) (int, error) {
		mu.Lock()
		defer mu.Unlock()
		n++
		writes := !slices.Contains([]disk.Op{disk.OpOpen, disk.OpRead, disk.OpRemove}, op)
		failure := error(syscall.EIO)
		if writes && op != disk.OpSync {
			failure = syscall.ENOSPC
		}
		switch {
		case kind == faultList:
			f, err := os.OpenFile(number, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o666)
			if err == nil {
				_, err = fmt.Fprintf(f, "%s %s\n", op, path)
				err = errors.Join(err, f.Close())
			}
			return size, err
		case n == at && kind == faultKill, n == at+1 && kind == faultHalf:
			die()
		case n == at && kind == faultCut:
			if info, err := os.Stat(path); err == nil && info.Mode().IsRegular() {
				_ = os.Truncate(path, info.Size()/2)
			}
		case n == at && (kind == faultShort || kind == faultHalf):
			return size / 2, failure
		case n == at && kind == faultFail, n >= at && kind == faultGone, n >= at && kind == faultFull && writes:
			return 0, failure
		}
		return size, nil
	}
}

// tortured is a command line that writes out, from what is in ../in.
type tortured struct {
	name, line string
	kept       string // what is added to out for the folder with which --resume goes on
	place      bool   // out fills up file by file
}

var torturedCommands = []tortured{
	{name: "train", line: "train ../in/m out --task sst2 --data ../in/sst2 --epochs 3 --eval-every 3 --snapshot-every 3 --batch 8 --lr 1e-3", kept: ".train"},
	{name: "fuse", line: "fuse ../in/m out --layers all --width 16", kept: ".fuse"},
	{name: "calibrated", line: "fuse ../in/m out --layers all --width 16 --method calibrated --task sst2 --data ../in/sst2", kept: ".fuse"},
	{name: "tune", line: "tune ../in/m ../in/small out --task sst2 --data ../in/sst2 --epochs 2 --batch 8 --lr 1e-3", kept: ".tune"},
	{name: "compare", line: "compare ../in/m out --methods none,prune --tasks sst2 --data ../in --widths 16 --seeds 1 --epochs 1 --batch 8 --lrs 1e-3", place: true},
	{name: "steps", line: "steps ../in/m ../in/small out --task sst2 --data ../in/sst2 --rows 8"},
	{name: "upcycle", line: "upcycle ../in/t5 out --experts 4"},
	{name: "export", line: "export ../in/small out"},
	{name: "shrink", line: "shrink ../in/m out --task sst2 --data ../in/sst2 --epochs 1 --lr 3e-3 --batch 8 --width 16", kept: ".shrink"},
}

// tortureRack runs a command in a folder of its own.
type tortureRack struct {
	tortured
	t     *testing.T
	dir   string            // where it runs
	input string            // ../in
	whole map[string]string // what an undisturbed run leaves, by hash
	count map[string]int    // what was done
	took  time.Duration
}

// TestTorture kills every command that writes at random moments and at single
// operations on files, and lets these fail. Whatever happened, out is not there or
// whole, the command says one sentence or nothing, and the same command goes on to the
// bytes of an undisturbed run and leaves nothing else. make torture runs it.
func TestTorture(t *testing.T) {
	if *torture == 0 {
		t.Skip("TestTorture: run by make torture")
	}
	only, err := regexp.Compile(*tortureOnly)
	if err != nil {
		t.Fatal(err)
	}
	root := t.TempDir()
	input := filepath.Join(root, "in")
	if err := errors.Join(writeModel("bert", filepath.Join(input, "m")), writeModel("t5-label", filepath.Join(input, "t5")), writeData(filepath.Join(input, "sst2"))); err != nil {
		t.Fatal(err)
	}
	if out, code := runIn(root, "", "fuse in/m in/small --layers all --width 16"); code != 0 {
		t.Fatal(out)
	}
	if err := os.CopyFS(filepath.Join(root, "kept"), os.DirFS(input)); err != nil {
		t.Fatal(err)
	}
	totals := map[string]map[string]int{}
	begin := time.Now()
	for _, c := range torturedCommands {
		if !only.MatchString(c.name) {
			continue
		}
		t.Run(c.name, func(t *testing.T) {
			r := &tortureRack{tortured: c, t: t, dir: filepath.Join(root, c.name), input: input, count: map[string]int{}}
			totals[c.name] = r.count
			r.run(*torture)
		})
	}
	report := tortureReport(totals, time.Since(begin), t.Failed())
	t.Log("\n" + report)
	if *tortureInto != "" {
		if err := os.WriteFile(*tortureInto, []byte(report), 0o666); err != nil {
			t.Error(err)
		}
	}
}

// tortureColumns are what is counted.
var tortureColumns = []struct{ key, title string }{
	{"operations", "operations on files"}, {"killed", "killed at a random moment"}, {faultKill, "killed before an operation"}, {faultHalf, "killed within a write"},
	{faultFail, "an operation fails"}, {faultShort, "half is read or written"}, {faultFull, "the disk is full from there on"}, {faultGone, "the disk is gone from there on"}, {faultCut, "the file that is read is cut"},
	{"together", "two at once"}, {"wrong", "faults found"},
}

func tortureReport(totals map[string]map[string]int, took time.Duration, failed bool) string {
	names := slices.Sorted(maps.Keys(totals))
	var b strings.Builder
	fmt.Fprintf(&b, "| | %s | all |\n| --- |%s\n", strings.Join(names, " | "), strings.Repeat(" ---: |", len(names)+1))
	for _, c := range tortureColumns {
		fmt.Fprintf(&b, "| %s |", c.title)
		sum := 0
		for _, name := range names {
			fmt.Fprintf(&b, " %d |", totals[name][c.key])
			sum += totals[name][c.key]
		}
		fmt.Fprintf(&b, " %d |\n", sum)
	}
	fmt.Fprintf(&b, "\n%s, %s, %.0f minutes\n", processor(), runtime.Version(), took.Minutes())
	return b.String()
}

// processor names the machine's.
func processor() string {
	text, err := os.ReadFile("/proc/cpuinfo")
	if err != nil {
		return runtime.GOARCH
	}
	field := func(key string) string {
		found := regexp.MustCompile(`(?m)^` + key + `\s*: (.*)$`).FindSubmatch(text)
		if found == nil {
			return "?"
		}
		return string(found[1])
	}
	return fmt.Sprintf("%s, family %s, model %s", field("model name"), field("cpu family"), field("model"))
}

func (r *tortureRack) run(n int) {
	ops := r.reference()
	rng := rand.New(rand.NewPCG(uint64(n), 1))
	for range n {
		r.killed(rng)
		r.two()
	}
	for _, kind := range []string{faultKill, faultHalf, faultFail, faultShort, faultFull, faultGone, faultCut} {
		var numbers []int
		for i, op := range ops {
			reads, writes := strings.HasPrefix(op, string(disk.OpRead)+" "), strings.HasPrefix(op, string(disk.OpWrite)+" ")
			fits := true
			switch kind {
			case faultHalf:
				fits = writes
			case faultCut:
				fits = reads && strings.Contains(op, " ../in/")
			case faultShort:
				fits = reads || writes
			}
			if fits {
				numbers = append(numbers, i)
			}
		}
		rng.Shuffle(len(numbers), func(i, j int) { numbers[i], numbers[j] = numbers[j], numbers[i] })
		for _, at := range numbers[:min(n, len(numbers))] {
			r.fault(kind, at, ops[at])
		}
	}
}

// reference runs the command undisturbed and returns its operations on files.
func (r *tortureRack) reference() []string {
	r.fresh()
	list := filepath.Join(filepath.Dir(r.dir), r.name+".list")
	if out, code := runIn(r.dir, faultList+" "+list, r.line); code != 0 {
		r.t.Fatalf("undisturbed: exit code %d: %s", code, out)
	}
	r.whole = r.tree()
	text, err := os.ReadFile(list)
	if err != nil {
		r.t.Fatal(err)
	}
	ops := strings.Split(strings.TrimSpace(string(text)), "\n")
	r.count["operations"] = len(ops)
	r.fresh()
	begin := time.Now()
	r.goOn("undisturbed")
	r.took = time.Since(begin)
	return ops
}

// killed lets the command begin, kills it, lets it go on, kills it and so on, and at
// last lets it end.
func (r *tortureRack) killed(rng *rand.Rand) {
	r.fresh()
	for range 4 {
		cmd := command(r.dir, "", r.args()...)
		if err := cmd.Start(); err != nil {
			r.t.Fatal(err)
		}
		done := make(chan struct{})
		go func() {
			_ = cmd.Wait() // killed, or ended: goOn will see
			close(done)
		}()
		select {
		case <-done:
			r.goOn("ended before it was killed")
			return
		case <-time.After(time.Duration(rng.Float64() * float64(r.took))):
			_ = cmd.Process.Kill()
			<-done
			r.count["killed"]++
			r.check("killed")
		}
	}
	r.goOn("killed")
}

// two runs the command twice at once: one may find the other at work, or done.
func (r *tortureRack) two() {
	r.fresh()
	r.count["together"]++
	a, b := command(r.dir, "", r.args()...), command(r.dir, "", r.args()...)
	var said [2]bytes.Buffer
	a.Stderr, b.Stderr = &said[0], &said[1]
	if err := errors.Join(a.Start(), b.Start()); err != nil {
		r.t.Fatal(err)
	}
	for i, err := range []error{a.Wait(), b.Wait()} {
		if err != nil {
			r.sentence("two at once", said[i].String())
		}
	}
	r.goOn("two at once")
}

// fault lets an operation fail.
func (r *tortureRack) fault(kind string, at int, op string) {
	r.fresh()
	r.count[kind]++
	when := fmt.Sprintf("%s at operation %d, %s", kind, at, strings.ReplaceAll(op, filepath.Dir(r.dir)+"/", ""))
	said, code := runIn(r.dir, fmt.Sprintf("%s %d", kind, at), r.line)
	switch code {
	case 0:
	case 1:
		r.sentence(when, said)
	case -1: // killed
		if kind != faultKill && kind != faultHalf {
			r.wrong("%s: killed: %s", when, said)
		}
	default:
		r.wrong("%s: exit code %d: %s", when, code, said)
	}
	if kind == faultCut {
		r.restore()
	}
	r.check(when)
	r.goOn(when)
}

// sentence checks what a command that failed says.
func (r *tortureRack) sentence(when, said string) {
	said = strings.TrimSpace(said)
	if !strings.HasPrefix(said, "mlpfusion: ") || strings.Contains(said, "\n") || len(said) > 1000 || strings.Contains(said, "panic") {
		r.wrong("%s: expected one sentence, found %.2000s", when, said)
	}
}

func (r *tortureRack) wrong(format string, args ...any) {
	r.t.Helper()
	r.count["wrong"]++
	r.t.Errorf(format, args...)
	if r.count["wrong"] > 20 {
		r.t.Fatal("and so on")
	}
}

// fresh empties the folder.
func (r *tortureRack) fresh() {
	if err := errors.Join(os.RemoveAll(r.dir), os.Mkdir(r.dir, 0o777)); err != nil {
		r.t.Fatal(err)
	}
}

// restore puts the inputs back that a fault has cut.
func (r *tortureRack) restore() {
	err := os.RemoveAll(r.input)
	if err == nil {
		err = os.CopyFS(r.input, os.DirFS(filepath.Join(filepath.Dir(r.dir), "kept")))
	}
	if err != nil {
		r.t.Fatal(err)
	}
}

// args is the command line with which a user goes on.
func (r *tortureRack) args() []string {
	args := strings.Fields(r.line)
	if exists(filepath.Join(r.dir, "out")) && !r.place {
		args = append(args, "--overwrite")
	}
	if r.kept != "" && exists(filepath.Join(r.dir, "out"+r.kept)) {
		args = append(args, "--resume")
	}
	return args
}

// goOn runs the command to its end and compares what it leaves.
func (r *tortureRack) goOn(when string) {
	r.t.Helper()
	args := r.args()
	said, code := runIn(r.dir, "", strings.Join(args, " "))
	if code != 0 {
		r.wrong("%s: then %q: exit code %d: %s", when, args, code, said)
		return
	}
	if d := differ(r.tree(), r.whole); d != "" {
		r.wrong("%s: then %q: %s", when, args, d)
	}
}

// check compares what stands at out.
func (r *tortureRack) check(when string) {
	r.t.Helper()
	if r.place || !exists(filepath.Join(r.dir, "out")) {
		return
	}
	of := func(tree map[string]string) map[string]string {
		out := map[string]string{}
		for name, sum := range tree {
			if strings.HasPrefix(name, "out/") {
				out[name] = sum
			}
		}
		return out
	}
	if d := differ(of(r.tree()), of(r.whole)); d != "" {
		r.wrong("%s: out is there and not whole: %s", when, d)
	}
}

// measured is what differs between two runs.
var measured = regexp.MustCompile(`(?s)"seconds": ?\{[^}]*\}|"(seconds|seconds_per_step|tokens_per_second|peak_memory_bytes)": ?[^,\n]*`)

// tree returns the files of the folder with their hashes; of JSON without what was measured.
func (r *tortureRack) tree() map[string]string {
	files := map[string]string{}
	err := filepath.WalkDir(r.dir, func(path string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		name, err := filepath.Rel(r.dir, path)
		if err != nil || name == "." {
			return err
		}
		if entry.IsDir() {
			files[filepath.ToSlash(name)+"/"] = ""
			return nil
		}
		data, err := os.ReadFile(path)
		if strings.Contains(filepath.Ext(name), "json") {
			data = measured.ReplaceAll(data, nil)
		}
		files[filepath.ToSlash(name)] = fmt.Sprintf("%x", sha256.Sum256(data))
		return err
	})
	if err != nil {
		r.t.Fatal(err)
	}
	return files
}

// differ names what two trees differ in.
func differ(found, want map[string]string) string {
	var d []string
	for name := range found {
		if _, ok := want[name]; !ok {
			d = append(d, name+" is left")
		}
	}
	for name, sum := range want {
		if other, ok := found[name]; !ok {
			d = append(d, name+" is missing")
		} else if other != sum {
			d = append(d, name+" has other bytes")
		}
	}
	slices.Sort(d)
	return strings.Join(d, ", ")
}

func exists(path string) bool {
	_, err := os.Lstat(path)
	return err == nil
}

// command is a run of the program in a folder, with a fault, if any.
func command(dir, fault string, args ...string) *exec.Cmd {
	self, err := os.Executable()
	if err != nil {
		panic(err)
	}
	cmd := exec.Command(self)
	cmd.Args = append([]string{"mlpfusion", "--quiet", "--threads", "1"}, args...)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), faultVariable+"="+fault, "HF_HUB_OFFLINE=1", "GOMAXPROCS=1")
	return cmd
}

// runIn runs the program and returns what it says on standard error and its exit code,
// -1 for a signal.
func runIn(dir, fault, line string) (string, int) {
	cmd := command(dir, fault, strings.Fields(line)...)
	var said bytes.Buffer
	cmd.Stderr = &said
	err := cmd.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		return err.Error(), -2
	}
	return said.String(), cmd.ProcessState.ExitCode()
}
