package main

import (
	"bufio"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"

	"mlpfusion/kernel"
	"mlpfusion/task"
)

// row is one line of the table.
type row struct {
	Name  string  `json:"name"`
	Peer  string  `json:"peer"`
	Reach string  `json:"reach"` // as the project's goals say it
	Ours  float64 `json:"ours"`  // seconds a step or sentences a second, median of the rounds
	Their float64 `json:"theirs"`
	Ratio float64 `json:"ratio"` // median of the rounds' ratios; above 1 we are faster, or smaller
	Least float64 `json:"least"` // of the rounds
	Most  float64 `json:"most"`

	ours, theirs request
	script       string // of the peer; "": ours against ours
}

func rows(cache string) []row {
	step := func(name, reach, model, ourMode, theirMode, prec string) row {
		q := request{Model: model, Mode: ourMode, Prec: prec, Threads: 2, Steps: 3, Warmup: 1}
		p := q
		p.Mode = theirMode
		return row{Name: name, Peer: "PyTorch, " + theirMode, Reach: reach, ours: q, theirs: p, script: "train.py"}
	}
	eval := func(name, reach, model, engine, order string) row {
		q := request{Model: model, Prec: "fp32", Threads: 2, Repeat: 1, Ours: true}
		return row{Name: name, Peer: engine + ", " + order, Reach: reach, ours: q, script: "eval.py",
			theirs: request{Engine: engine, Order: order, Model: model, Prec: "fp32", Threads: 2, Repeat: 1, Cache: cache}}
	}
	list := []row{
		step("MiniLM SST-2 step, fp32", "≥ 3.5", "minilm", "random", "random", "fp32"),
		step("MiniLM SST-2 step, fp32", "≥ 1.8", "minilm", "random", "grouped", "fp32"),
		step("MiniLM SST-2 step, fp32", "≥ 10", "minilm", "random", "pad128", "fp32"),
		step("MiniLM dense 32×128 step, fp32", "≥ 1.5", "minilm", "dense", "dense", "fp32"),
		step("MiniLM SST-2 step, bf16", "≥ 4", "minilm", "random", "random", "bf16"),
		step("BERT-base SST-2 step, fp32", "≥ 3.5", "bert-base", "random", "random", "fp32"),
		step("BERT-base dense 32×128 step, fp32", "≥ 1.15", "bert-base", "dense", "dense", "fp32"),
		eval("MiniLM SST-2 evaluation, fp32", "≥ 3", "minilm", "torch", "file"),
		eval("MiniLM SST-2 evaluation, fp32", "≥ 2", "minilm", "onnx", "file"),
		eval("MiniLM SST-2 evaluation, fp32", "", "minilm", "onnx", "sorted"),
	}
	for _, m := range []string{"minilm", "bert-base"} {
		for _, mode := range []string{"random", "dense"} {
			fused := request{Model: m, Mode: mode, Prec: "fp32", Threads: 2, Steps: 3, Warmup: 1, Fused: true}
			whole := fused
			whole.Fused = false
			list = append(list, row{Name: m + " " + mode + " step, fused : original", Peer: "ours, original", Reach: "≥ 0.9 of the FLOPs ratio", ours: fused, theirs: whole})
		}
	}
	return list
}

func compare(args []string) error {
	f := flag.NewFlagSet("compare", flag.ExitOnError)
	python := f.String("python", "python3", "the peers' Python")
	rounds := f.Int("rounds", 5, "alternations of each row")
	only := f.String("only", "", "regular expression of the rows to measure")
	out := f.String("out", "", "write DIR/<date>-<cpu>-engine.json and .md")
	cache := f.String("cache", filepath.Join(os.TempDir(), "mlpfusion-onnx"), "where ONNX graphs are kept")
	if err := f.Parse(args); err != nil {
		return err
	}
	self, err := os.Executable()
	if err != nil {
		return err
	}
	ours, err := start(self, "serve")
	if err != nil {
		return err
	}
	defer ours.close()
	peers := map[string]*process{}
	set, err := loadLengths()
	if err != nil {
		return err
	}
	var done []row
	for _, r := range rows(*cache) {
		if *only != "" && !regexp.MustCompile(*only).MatchString(r.Name+" "+r.Peer) {
			continue
		}
		other := ours
		if r.script != "" {
			if peers[r.script] == nil {
				if peers[r.script], err = start(*python, filepath.Join("bench", "peers", r.script)); err != nil {
					return err
				}
				defer peers[r.script].close()
			}
			other = peers[r.script]
		}
		if err := r.measure(ours, other, *rounds, set); err != nil {
			return fmt.Errorf("%s: %w", r.Name, err)
		}
		fmt.Fprintf(os.Stderr, "%-38s %-18s ours %9.4g theirs %9.4g ratio %.2f (%.2f … %.2f)\n", r.Name, r.Peer, r.Ours, r.Their, r.Ratio, r.Least, r.Most)
		done = append(done, r)
	}
	memory, err := compareMemory(self, *python, set)
	if err != nil {
		return err
	}
	done = append(done, memory)
	return write(*out, done)
}

// settle is how long the peer's threads are given to go to sleep after a step:
// OpenMP's wait awake for up to a fifth of a second, on the processors that ours need.
const settle = 250 * time.Millisecond

// measure alternates both sides.
func (r *row) measure(ours, other *process, rounds int, set *task.Encoded) error {
	var a, b, ratios []float64
	for round := range rounds {
		q, p := r.ours, r.theirs
		if !q.Ours {
			q.Rows = draw(q, set, uint64(round))
			p.Rows = q.Rows
			if p.Mode == "grouped" {
				p.Rows, p.Steps = nil, 12 // its own sampling: lengths differ much from batch to batch
			}
		}
		time.Sleep(settle)
		x, err := ours.ask(q)
		if err != nil {
			return err
		}
		y, err := other.ask(p)
		if err != nil {
			return err
		}
		if q.Ours {
			a, b, ratios = append(a, x.Sentences), append(b, y.Sentences), append(ratios, x.Sentences/y.Sentences)
			continue
		}
		if p.Rows == nil {
			// Other batches of other lengths: time by token, for as many.
			x.Seconds, y.Seconds = mean(x.All), mean(y.All)*x.Tokens/y.Tokens
		}
		a, b, ratios = append(a, x.Seconds), append(b, y.Seconds), append(ratios, y.Seconds/x.Seconds)
	}
	r.Ours, r.Their, r.Ratio, r.Least, r.Most = median(a), median(b), median(ratios), slices.Min(ratios), slices.Max(ratios)
	return nil
}

func mean(x []float64) float64 {
	var sum float64
	for _, v := range x {
		sum += v
	}
	return sum / float64(len(x))
}

// draw chooses a round's batches, the same for both sides.
func draw(q request, set *task.Encoded, seed uint64) [][]int32 {
	n := set.Len()
	if q.Mode == "dense" {
		n = len(set.IDs) / denseLength
	}
	rng := rand.New(rand.NewPCG(seed, 7))
	batches := make([][]int32, q.Warmup+q.Steps)
	for i := range batches {
		for range 32 {
			batches[i] = append(batches[i], int32(rng.IntN(n)))
		}
	}
	return batches
}

// loadLengths loads SST-2 to know how many rows there are.
func loadLengths() (*task.Encoded, error) {
	s := &server{}
	err := s.load()
	return s.train, err
}

// compareMemory measures peak memory in fresh processes.
func compareMemory(self, python string, set *task.Encoded) (row, error) {
	r := row{Name: "MiniLM SST-2 training, peak memory (MB)", Peer: "PyTorch, random", Reach: "≥ 1.67 (ours ≤ 0.6 of theirs)"}
	q := request{Model: "minilm", Mode: "random", Prec: "fp32", Threads: 2, Steps: 20, Warmup: 1}
	q.Rows = draw(q, set, 1)
	for i, args := range [][]string{{self, "serve"}, {python, filepath.Join("bench", "peers", "train.py")}} {
		p, err := start(args[0], args[1:]...)
		if err != nil {
			return r, err
		}
		a, err := p.ask(q)
		p.close()
		if err != nil {
			return r, err
		}
		if i == 0 {
			r.Ours = a.Peak
		} else {
			r.Their = a.Peak
		}
	}
	r.Ratio = r.Their / r.Ours
	r.Least, r.Most = r.Ratio, r.Ratio
	return r, nil
}

// process is one side: requests in, answers out, a JSON object a line.
type process struct {
	cmd *exec.Cmd
	in  io.WriteCloser
	out *bufio.Reader
}

func start(name string, args ...string) (*process, error) {
	p := &process{cmd: exec.Command(name, args...)}
	p.cmd.Stderr = os.Stderr
	var err error
	if p.in, err = p.cmd.StdinPipe(); err != nil {
		return nil, err
	}
	out, err := p.cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	p.out = bufio.NewReaderSize(out, 1<<20)
	return p, p.cmd.Start()
}

func (p *process) ask(q request) (a answer, err error) {
	if err := json.NewEncoder(p.in).Encode(q); err != nil {
		return a, err
	}
	line, err := p.out.ReadBytes('\n')
	if err != nil {
		return a, err
	}
	if err := json.Unmarshal(line, &a); err != nil {
		return a, err
	}
	if a.Error != "" {
		return a, fmt.Errorf("%s", a.Error)
	}
	return a, nil
}

func (p *process) close() {
	// It has answered all it was asked: how it ends does not matter.
	_ = p.in.Close()
	_ = p.cmd.Wait()
}

// write prints the table and keeps it with the CPU's name.
func write(dir string, rows []row) error {
	cpu, flags := cpuInfo()
	var b strings.Builder
	fmt.Fprintf(&b, "# Engine against peers\n\n%s, %s; kernels %s; %s.\nMedians of alternating runs; above 1 ours is faster (or smaller).\n\n",
		time.Now().UTC().Format("2006-01-02"), cpu, kernel.Level(), flags)
	b.WriteString("| what | against | ours | theirs | ratio | of the rounds | to reach |\n| --- | --- | --- | --- | --- | --- | --- |\n")
	for _, r := range rows {
		fmt.Fprintf(&b, "| %s | %s | %.4g | %.4g | %.2f | %.2f … %.2f | %s |\n", r.Name, r.Peer, r.Ours, r.Their, r.Ratio, r.Least, r.Most, r.Reach)
	}
	fmt.Print(b.String())
	if dir == "" {
		return nil
	}
	name := filepath.Join(dir, time.Now().UTC().Format("2006-01-02")+"-"+regexp.MustCompile(`[^a-z0-9]+`).ReplaceAllString(strings.ToLower(cpu), "-")+"-engine")
	text, err := json.MarshalIndent(map[string]any{"cpu": cpu, "features": flags, "kernels": kernel.Level().String(), "rows": rows}, "", "  ")
	if err != nil {
		return err
	}
	if err := os.WriteFile(name+".json", append(text, '\n'), 0o666); err != nil {
		return err
	}
	return os.WriteFile(name+".md", []byte(b.String()), 0o666)
}

// cpuInfo returns the processor's name and those of its features that matter.
func cpuInfo() (name, features string) {
	text, _ := os.ReadFile("/proc/cpuinfo")
	family := ""
	for _, line := range strings.Split(string(text), "\n") {
		key, value, _ := strings.Cut(line, ":")
		value = strings.TrimSpace(value)
		switch strings.TrimSpace(key) {
		case "model name":
			name = value
		case "cpu family", "model":
			family += " " + value
		case "flags":
			var have []string
			for _, f := range []string{"avx2", "fma", "avx512f", "avx512_bf16", "amx_bf16"} {
				if slices.Contains(strings.Fields(value), f) {
					have = append(have, f)
				}
			}
			return name + " family" + family, strings.Join(have, " ")
		}
	}
	return "unknown", ""
}
