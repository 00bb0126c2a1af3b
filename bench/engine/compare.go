package main

import (
	"cmp"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"

	"mlpfusion/bench/internal/fma"
	"mlpfusion/bench/internal/peer"
	"mlpfusion/bench/internal/results"
	"mlpfusion/task"
)

// row is one line of the table.
type row struct {
	Name  string  `json:"name"`
	Peer  string  `json:"peer"`
	Reach string  `json:"reach"` // as the project's goals say it
	Ours  float64 `json:"ours"`  // seconds a step, sentences a second or MB, median of the rounds
	Their float64 `json:"theirs"`
	Ratio float64 `json:"ratio"` // median of the rounds' ratios; above 1 we are faster, or smaller
	Least float64 `json:"least"` // of the rounds
	Most  float64 `json:"most"`
	Work  float64 `json:"work,omitempty"`  // ours against ours: the ratio of the operations
	Limit float64 `json:"limit,omitempty"` // against a peer: the ratio at the peak, see atPeak; median of the rounds

	ours, theirs request
	script       string // of the peer; "": ours against ours
	memory       bool   // compare peak memory, in fresh processes
	alone        bool   // too large for both at once: each turn is a process of its own
}

func (r row) key() string { return r.Name + " " + r.Peer }

func rows(cache string) []row {
	var list []row
	// The steps of the large shapes take seconds: fewer of them, and PyTorch's faster
	// attention is not looked for where a step takes 14, or where transformers has
	// one only.
	ask := func(model, mode, prec string) request {
		q := request{Model: model, Mode: mode, Prec: prec, Threads: 2, Steps: 3, Warmup: 1}
		if model == "bert-base" && mode != "random" || model == "t5-base" {
			q.Steps, q.Attn = 1, "sdpa"
		}
		if strings.HasPrefix(model, "switch") {
			q.Batch, q.Attn = 64, "eager"
		}
		return q
	}
	step := func(model, name, ourMode, theirMode, prec, reach string) {
		r := row{Name: name + " step, " + prec, Peer: "PyTorch, " + theirMode, Reach: reach, script: "train.py"}
		r.theirs = ask(model, theirMode, prec)
		r.ours = r.theirs
		r.ours.Mode = ourMode
		list = append(list, r)
	}
	for _, m := range []struct{ model, name, dense string }{{"minilm", "MiniLM", "≥ 1.5"}, {"bert-base", "BERT-base", "≥ 1.15"}} {
		step(m.model, m.name+" SST-2", "random", "random", "fp32", "≥ 3.5")
		step(m.model, m.name+" SST-2", "random", "random", "bf16", "≥ 4")
		step(m.model, m.name+" SST-2", "random", "grouped", "fp32", "≥ 1.8")
		step(m.model, m.name+" SST-2", "random", "pad128", "fp32", "≥ 10")
		step(m.model, m.name+" dense 32×128", "dense", "dense", "fp32", m.dense)
	}
	step("switch", "Switch, 8 experts, 4+4 layers, SST-2 64", "random", "random", "fp32", "≥ 4")
	step("switch", "Switch, 8 experts, 4+4 layers, SST-2 64", "random", "random", "bf16", "≥ 4")
	step("switch-6", "Switch, 8 experts, 6+6 layers, SST-2 64", "random", "random", "fp32", "≥ 4")
	step("switch-12", "Switch, 8 experts, 12+12 layers, SST-2 64", "random", "random", "fp32", "≥ 4")
	list[len(list)-1].alone = true
	step("t5-base", "T5-base SST-2", "random", "random", "fp32", "")
	step("t5-base", "T5-base SST-2", "random", "random", "bf16", "")
	eval := func(engine, order, reach string) {
		list = append(list, row{Name: "MiniLM SST-2 evaluation, fp32", Peer: engine + ", " + order + " order", Reach: reach, script: "eval.py",
			ours:   request{Model: "minilm", Prec: "fp32", Threads: 2, Repeat: 1, Ours: true},
			theirs: request{Engine: engine, Order: order, Model: "minilm", Prec: "fp32", Threads: 2, Repeat: 1, Cache: cache}})
	}
	eval("torch", "file", "≥ 3")
	eval("torch", "sorted", "")
	eval("onnx", "file", "≥ 2")
	eval("onnx", "sorted", "")
	list = append(list, row{Name: "MiniLM SST-2 training, peak memory (MB)", Peer: "PyTorch, random", Reach: "≥ 1.67", memory: true})
	for _, m := range []string{"minilm", "bert-base"} {
		for _, mode := range []string{"random", "dense"} {
			r := row{Name: m + " " + mode + " step, fused", Peer: "ours, original", Reach: "≥ 0.9 of the operations' ratio",
				ours: ask(m, mode, "fp32"), theirs: ask(m, mode, "fp32")}
			r.ours.Fused = true
			list = append(list, r)
		}
	}
	fused := row{Name: "Switch step, fused", Peer: "ours, original", Reach: "≥ 0.9 of the operations' ratio", ours: ask("switch", "random", "fp32"), theirs: ask("switch", "random", "fp32")}
	fused.ours.Fused = true
	list = append(list, fused)
	for _, m := range []string{"minilm", "bert-base"} {
		r := row{Name: m + " dense step, 2 workers", Peer: "ours, 1 worker", Reach: "≥ 1.9", ours: ask(m, "dense", "fp32"), theirs: ask(m, "dense", "fp32")}
		r.theirs.Threads = 1
		list = append(list, r)
	}
	return list
}

func compare(args []string) error {
	f := flag.NewFlagSet("compare", flag.ExitOnError)
	python := f.String("python", "python3", "the peers' Python")
	rounds := f.Int("rounds", 5, "alternations of each row")
	only := f.String("only", "", "regular expression of the rows to measure")
	out := f.String("out", "", "keep the rows in DIR/<date>-<cpu>-engine.json and .md, beside those of earlier runs")
	cache := f.String("cache", filepath.Join(os.TempDir(), "mlpfusion-onnx"), "where ONNX graphs are kept")
	if err := f.Parse(args); err != nil {
		return err
	}
	chosen, err := regexp.Compile(*only)
	if err != nil {
		return err
	}
	self, err := os.Executable()
	if err != nil {
		return err
	}
	sides := map[string]*peer.Process{}
	start := func(script string) (*peer.Process, error) {
		if filepath.Ext(script) == "" {
			return peer.Start(self, "serve")
		}
		return peer.Start(*python, filepath.Join("bench", "peers", script))
	}
	ask := func(script string, q request) (a answer, err error) {
		if sides[script] == nil {
			if sides[script], err = start(script); err != nil {
				return a, err
			}
		}
		return peer.Ask[answer](sides[script], q)
	}
	askAlone := func(script string, q request) (a answer, err error) {
		p, err := start(script)
		if err != nil {
			return a, err
		}
		a, err = peer.Ask[answer](p, q)
		return a, errors.Join(err, p.Close())
	}
	defer func() {
		for _, p := range sides {
			_ = p.Close() // it has answered all it was asked
		}
	}()
	set, err := loadLengths()
	if err != nil {
		return err
	}
	text := ""
	for _, r := range rows(*cache) {
		if !chosen.MatchString(r.key()) {
			continue
		}
		switch {
		case r.memory:
			r, err = r.measureMemory(self, *python, set)
		case r.alone:
			err = r.measure(askAlone, *rounds, set)
		default:
			err = r.measure(ask, *rounds, set)
		}
		if err != nil {
			return fmt.Errorf("%s: %w", r.Name, err)
		}
		fmt.Fprintf(os.Stderr, "%-38s %-18s ours %9.4g theirs %9.4g ratio %.2f (%.2f … %.2f) at the peak %s %s\n", r.Name, r.Peer, r.Ours, r.Their, r.Ratio, r.Least, r.Most, known(r.Limit), r.share())
		// Kept at once: a run may be ended before its last row.
		if text, err = results.Write(*out, "engine", []row{r}, row.key, table); err != nil {
			return err
		}
	}
	fmt.Print(text)
	return nil
}

// share tells how much of the operations' ratio became speed.
func (r row) share() string {
	if r.Work == 0 {
		return ""
	}
	return fmt.Sprintf("%.2f of %.2f", r.Ratio/r.Work, r.Work)
}

// measure alternates both sides and, against a peer, the peak; ask asks one of them,
// by the peer's script or a name.
func (r *row) measure(ask func(side string, q request) (answer, error), rounds int, set *task.Encoded) error {
	var a, b, ratios, limits []float64
	for round := range rounds {
		q, p := r.ours, r.theirs
		if round > 0 && !r.alone {
			q.Warmup, p.Warmup = 0, 0 // the models live on
		}
		if !q.Ours {
			if p.Mode == "grouped" {
				q.Steps = 3 // enough for a mean by token
			}
			q.Rows = draw(q, set, uint64(round))
			p.Rows = q.Rows
			if p.Mode == "grouped" {
				p.Rows, p.Steps = nil, 12 // its own sampling: lengths differ much from batch to batch
			}
		}
		time.Sleep(results.Settle)
		x, err := ask("ours", q)
		if err != nil {
			return err
		}
		y, err := ask(cmp.Or(r.script, "ours again"), p)
		if err != nil {
			return err
		}
		middle := results.Median
		if q.Ours {
			x.Seconds, y.Seconds = 1/x.Sentences, 1/y.Sentences
			a, b = append(a, x.Sentences), append(b, y.Sentences)
		} else {
			if p.Rows == nil {
				// Other batches of other lengths: time by token, for as many.
				middle = mean
				x.Seconds, y.Seconds = mean(x.All), mean(y.All)*x.Tokens/y.Tokens
			}
			a, b = append(a, x.Seconds), append(b, y.Seconds)
		}
		ratios = append(ratios, y.Seconds/x.Seconds)
		if r.script != "" {
			limits = append(limits, atPeak(q, y.Seconds, middle(x.FLOPs)))
		} else if mine, other := middle(x.FLOPs), middle(y.FLOPs); mine != other {
			r.Work = other / mine
		}
	}
	r.Ours, r.Their, r.Ratio, r.Least, r.Most = results.Median(a), results.Median(b), results.Median(ratios), slices.Min(ratios), slices.Max(ratios)
	r.Limit = results.Median(limits)
	return nil
}

// atPeak is the ratio if our products, of this many operations, ran at the machine's
// peak of multiply-adds, which it measures, and all else took no time: the limit for
// every engine that computes the same products. It is 0 where the peak is not known.
func atPeak(q request, theirs, flops float64) float64 {
	time.Sleep(results.Settle)
	return theirs * fma.Peak(prec(q), q.Threads) * 1e9 / flops
}

// atPeakNote says so above a table.
const atPeakNote = "At the peak: the ratio if our matrix products ran at the machine's peak of multiply-adds (in registers,\n" +
	"on as many threads, measured in each round; of bfloat16 with VDPBF16PS) and all else took no time.\n\n"

// known is a number that is 0 when it is not known.
func known(x float64) string {
	if x == 0 {
		return "–"
	}
	return fmt.Sprintf("%.2f", x)
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
		for range cmp.Or(q.Batch, 32) {
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

// measureMemory measures peak memory in fresh processes.
func (r row) measureMemory(self, python string, set *task.Encoded) (row, error) {
	q := request{Model: "minilm", Mode: "random", Prec: "fp32", Threads: 2, Steps: 20, Warmup: 1}
	q.Rows = draw(q, set, 1)
	for i, args := range [][]string{{self, "serve"}, {python, filepath.Join("bench", "peers", "train.py")}} {
		p, err := peer.Start(args[0], args[1:]...)
		if err != nil {
			return r, err
		}
		a, err := peer.Ask[answer](p, q)
		_ = p.Close() // it has answered
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

// table is the Markdown of all rows.
func table(m results.Machine, rows []row) string {
	var b strings.Builder
	fmt.Fprintf(&b, "# Engine against peers\n\n%s\nSeconds a step or sentences a second, medians of alternating runs; above 1 ours is faster (or smaller).\n"+atPeakNote, m)
	b.WriteString("| what | against | ours | theirs | ratio | of the rounds | at the peak | to reach |\n| --- | --- | --- | --- | --- | --- | --- | --- |\n")
	for _, r := range rows {
		ratio := fmt.Sprintf("%.2f", r.Ratio)
		if r.Work != 0 {
			ratio += " (" + r.share() + ")"
		}
		fmt.Fprintf(&b, "| %s | %s | %.4g | %.4g | %s | %.2f … %.2f | %s | %s |\n", r.Name, r.Peer, r.Ours, r.Their, ratio, r.Least, r.Most, known(r.Limit), r.Reach)
	}
	return b.String()
}
