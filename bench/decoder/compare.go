package main

import (
	"errors"
	"flag"
	"fmt"
	"math"
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
	"mlpfusion/bench/internal/stream"
	"mlpfusion/kernel"
	"mlpfusion/tokenize"
)

// row is one line of the table.
type row struct {
	Name     string  `json:"name"`
	Peer     string  `json:"peer"`
	Reach    string  `json:"reach"` // as the project's goals say it
	Unit     string  `json:"unit"`
	Ours     float64 `json:"ours"` // median of the rounds
	Their    float64 `json:"theirs"`
	Ratio    float64 `json:"ratio"` // median of the rounds' ratios; above 1 we are faster
	Least    float64 `json:"least"` // of the rounds
	Most     float64 `json:"most"`
	Share    float64 `json:"share,omitempty"` // ours of the machine's peak, see share
	Work     float64 `json:"work,omitempty"`  // ours against ours: the ratio of the operations
	OurPeak  float64 `json:"our_peak_mb"`
	PeerPeak float64 `json:"peer_peak_mb"`

	what, prec string
	threads    int
	mode       string // of the texts, see texts.draw
	peer       side
	compile    bool
	base       string // of an adapter
	again      bool
}

// side says whom ours are compared with.
type side int

const (
	transformers side = iota
	llama
	original // ours, not fused
)

func (r *row) key() string { return r.Name + ", " + r.Peer }

const (
	written = 64 // tokens that a generation writes
	window  = 2048
	prompt  = 512
)

func rows() []*row {
	var list []*row
	add := func(r row) { list = append(list, &r) }
	for _, mode := range []string{"dense", "ragged", "grouped"} {
		for _, prec := range []string{"fp32", "bf16"} {
			r := row{Name: "step, " + mode + ", " + prec, Peer: "PyTorch", Unit: "s", what: "step", prec: prec, threads: 2, mode: mode}
			r.Reach = map[string]string{"densefp32": "≥ 1.8", "densebf16": "≥ 2", "raggedfp32": "≥ 4", "raggedbf16": "≥ 4"}[mode+prec]
			if mode == "grouped" {
				r.Name, r.Peer, r.Reach, r.Unit = "step, ragged, "+prec, "PyTorch, length-grouped", "≥ 2", "ms a token"
			}
			add(r)
			if mode != "grouped" {
				r.Peer, r.compile = "PyTorch, compiled", true
				add(r)
			}
		}
	}
	for _, mode := range []string{"dense", "ragged"} {
		for _, prec := range []string{"fp32", "bf16"} {
			add(row{Name: "LoRA step, " + mode + ", base and products " + prec, Peer: "PEFT", Reach: map[string]string{"dense": "≥ 1.5", "ragged": "≥ 4"}[mode], Unit: "s", what: "adapt", prec: prec, threads: 2, mode: mode, base: prec})
		}
	}
	add(row{Name: "LoRA step, ragged, base int8, layers run again, products bf16", Peer: "PEFT, base bf16", Reach: "below 1.5 GB", Unit: "s", what: "adapt", prec: "bf16", threads: 2, mode: "ragged", base: "int8", again: true})
	for _, mode := range []string{"dense", "ragged"} {
		for _, prec := range []string{"fp32", "bf16"} {
			add(row{Name: "step, " + mode + ", half the units, " + prec, Peer: "ours, all units", Reach: "≥ 0.9 of the operations' ratio", Unit: "s", what: "step", prec: prec, threads: 2, mode: mode, peer: original})
		}
	}
	for _, prec := range []string{"fp32", "bf16"} {
		add(row{Name: "perplexity, windows of 2,048, " + prec, Peer: "transformers", Reach: "≥ 1.5", Unit: "tokens/s", what: "perplexity", prec: prec, threads: 2, mode: "windows"})
	}
	for _, prec := range []string{"fp32", "bf16"} {
		for _, mode := range []string{"1 text", "8 texts"} {
			add(row{Name: "generation, " + mode + ", " + prec, Peer: "transformers", Reach: map[string]string{"fp32": "≥ 1.7", "bf16": "≥ 2.5"}[prec], Unit: "tokens/s", what: "generate", prec: prec, threads: 2, mode: mode})
		}
	}
	for _, threads := range []int{1, 2} {
		for _, prec := range []string{"fp32", "bf16", "int8"} {
			name := fmt.Sprintf("1 text behind 512 tokens, %s, threads %d", prec, threads)
			r := row{Name: "prompt of " + name, Peer: "llama.cpp", Unit: "tokens/s", what: "generate", prec: prec, threads: threads, mode: "prompt", peer: llama}
			r.Reach = map[string]string{"fp32": "≥ 1.5", "bf16": "≥ 1.5"}[prec]
			add(r)
			r.Name, r.Reach, r.mode = "generation, "+name, "≥ 1", "behind"
			add(r)
		}
	}
	return list
}

func compare(args []string) error {
	f := flag.NewFlagSet("compare", flag.ExitOnError)
	python := f.String("python", "python3", "the Python of transformers")
	llamaPython := f.String("llama", "python3", "the Python of llama.cpp")
	gguf := f.String("gguf", "", "the folder of llama.cpp's models")
	rounds := f.Int("rounds", 3, "alternations of each row")
	only := f.String("only", "", "regular expression of the rows to measure")
	out := f.String("out", "", "keep the rows in DIR/<date>-<cpu>-decoder.json and .md, beside those of earlier runs")
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
	texts, err := loadTexts()
	if err != nil {
		return err
	}
	scripts := map[side][]string{
		transformers: {*python, filepath.Join("bench", "peers", "decoder.py")},
		llama:        {*llamaPython, filepath.Join("bench", "peers", "llama.py"), *gguf},
		original:     {self, "serve"},
	}
	table := ""
	for _, r := range rows() {
		if !chosen.MatchString(r.key()) {
			continue
		}
		if err := r.measure([]string{self, "serve"}, scripts[r.peer], *rounds, texts); err != nil {
			return fmt.Errorf("%s: %w", r.key(), err)
		}
		fmt.Fprintf(os.Stderr, "%-60s ours %8.4g theirs %8.4g %s ratio %.2f (%.2f … %.2f) of the peak %.2f, MB %.0f : %.0f %s\n", r.key(), r.Ours, r.Their, r.Unit, r.Ratio, r.Least, r.Most, r.Share, r.OurPeak, r.PeerPeak, r.work())
		// Kept at once: a run may be ended before its last row.
		if table, err = results.Write(*out, "decoder", []row{*r}, func(r row) string { return r.key() }, markdown); err != nil {
			return err
		}
	}
	fmt.Print(table)
	return nil
}

// measure alternates both sides: two processes, or, where both at once would need much
// memory, one for each turn.
func (r *row) measure(ours, theirs []string, rounds int, texts *texts) (err error) {
	peak, reading := peaks(precision(r.prec), r.threads) // before anything else runs
	var sides [2]*peer.Process
	alone := r.what == "step" || r.what == "adapt"
	turn := func(side int, args []string, q request) (a answer, err error) {
		if sides[side] == nil {
			if sides[side], err = peer.Start(args[0], args[1:]...); err != nil {
				return a, err
			}
			warm := q
			if args[0] != ours[0] { // what it needs for a step it takes each time anew
				warm.Texts = [][]int32{q.Texts[0][:32]}
			}
			if _, err = peer.Ask[answer](sides[side], warm); err != nil {
				return a, err
			}
		}
		time.Sleep(results.Settle)
		a, err = peer.Ask[answer](sides[side], q)
		if alone || err != nil {
			err = errors.Join(err, sides[side].Close())
			sides[side] = nil
		}
		return a, err
	}
	defer func() {
		for _, s := range sides {
			if s != nil {
				_ = s.Close() // it has answered all it was asked
			}
		}
	}()
	var a, b, ratios, shares []float64
	for round := range rounds {
		rng := rand.New(rand.NewPCG(uint64(round), 7))
		q := request{What: r.what, Prec: r.prec, Threads: r.threads, Tokens: written, Fused: r.peer == original, Base: r.base, Again: r.again}
		p := q
		p.Fused, p.Compile, p.Again = false, r.compile, false
		q.Texts, p.Texts = texts.draw(r.mode, rng)
		x, err := turn(0, ours, q)
		if err != nil {
			return err
		}
		y, err := turn(1, theirs, p)
		if err != nil {
			return err
		}
		r.OurPeak, r.PeerPeak = x.Peak, y.Peak
		share := x.FLOPs / x.Seconds / peak
		mine, other := x.Seconds, y.Seconds // a step, or a token
		switch r.mode {
		case "grouped":
			mine, other = 1000*mine/tokens(q.Texts), 1000*other/tokens(p.Texts)
		case "windows":
			mine, other = mine/tokens(q.Texts), other/tokens(p.Texts)
		case "prompt":
			share = x.FLOPs / x.Prompt / peak
			mine, other = x.Prompt/prompt, y.Prompt/prompt
		case "behind":
			mine, other = (x.Seconds-x.Prompt)/(written-1), (y.Seconds-y.Prompt)/(written-1)
		case "1 text", "8 texts":
			n := float64(len(q.Texts) * written)
			mine, other = mine/n, other/n
		}
		switch r.mode {
		case "behind", "1 text":
			share = weightBytes[r.prec] / mine / reading
		case "8 texts": // bound by neither alone
			share = 0
		}
		if r.peer == original {
			r.Work = y.FLOPs / x.FLOPs
		}
		if r.Unit == "tokens/s" {
			a, b = append(a, 1/mine), append(b, 1/other)
		} else {
			a, b = append(a, mine), append(b, other)
		}
		if math.IsInf(share, 1) { // the peak of this machine's instructions is not known
			share = 0
		}
		ratios, shares = append(ratios, other/mine), append(shares, share)
	}
	r.Ours, r.Their, r.Ratio, r.Least, r.Most = results.Median(a), results.Median(b), results.Median(ratios), slices.Min(ratios), slices.Max(ratios)
	r.Share = results.Median(shares)
	return nil
}

// peaks returns the operations, of multiply-adds in registers, and the bytes read that the
// machine does in a second.
var peaks = func() func(prec kernel.Precision, threads int) (flops, reading float64) {
	type key struct {
		prec    kernel.Precision
		threads int
	}
	known := map[key][2]float64{}
	return func(prec kernel.Precision, threads int) (flops, reading float64) {
		k := key{prec, threads}
		if _, ok := known[k]; !ok {
			known[k] = [2]float64{fma.Peak(prec, threads) * 1e9, stream.Peak(threads) * 1e9}
		}
		return known[k][0], known[k][1]
	}
}()

// weightBytes is what the matrices of SmolLM2-135M take, which each token of one text
// reads.
var weightBytes = map[string]float64{"fp32": matrices * 4, "bf16": matrices * 2, "int8": matrices * 9 / 8}

const matrices = 30*(2*576*(576+192)+3*576*1536) + 49152*576

func tokens(texts [][]int32) float64 {
	n := 0
	for _, t := range texts {
		n += len(t) - 1
	}
	return float64(n)
}

// texts are what is measured on: WikiText-2's test text.
type texts struct {
	article    []int32   // all of it
	paragraphs [][]int32 // its paragraphs, without headings
}

func loadTexts() (*texts, error) {
	data := os.Getenv("MLPFUSION_DATA")
	if data == "" {
		data = filepath.Join("..", "shared", "data")
	}
	tok, err := tokenize.Load(directory())
	if err != nil {
		return nil, fmt.Errorf("MLPFUSION_SMOLLM2: %w", err)
	}
	wiki, err := os.ReadFile(filepath.Join(data, "WikiText-2", "wiki.test.raw"))
	if err != nil {
		return nil, err
	}
	t := &texts{}
	for line := range strings.Lines(string(wiki)) {
		ids := tok.Encode(line, nil, 0).IDs
		t.article = append(t.article, ids...)
		if strings.TrimSpace(line) != "" && !strings.HasPrefix(line, " = ") {
			t.paragraphs = append(t.paragraphs, ids[:min(len(ids), 512)])
		}
	}
	return t, nil
}

const (
	batch  = 8
	groups = 50 // batches that a length-grouped sampler sorts together
)

// draw chooses the texts of a round, for ours and for the peer: the same but where the
// peer groups by length.
func (t *texts) draw(mode string, rng *rand.Rand) (ours, theirs [][]int32) {
	pieces := func(n, length int) (list [][]int32) {
		for range n {
			from := rng.IntN(len(t.article) - length)
			list = append(list, t.article[from:from+length])
		}
		return list
	}
	paragraphs := func(n int) (list [][]int32) {
		for range n {
			list = append(list, t.paragraphs[rng.IntN(len(t.paragraphs))])
		}
		return list
	}
	switch mode {
	case "dense":
		ours = pieces(4, 512+1)
	case "windows":
		ours = pieces(2, window)
	case "prompt", "behind":
		ours = pieces(1, prompt)
	case "1 text":
		ours = pieces(1, 64)
	case "8 texts":
		for range 8 {
			ours = append(ours, pieces(1, 32+rng.IntN(65))...)
		}
	case "ragged":
		ours = paragraphs(batch)
	case "grouped":
		ours = paragraphs(batch)
		sorted := paragraphs(groups * batch)
		slices.SortFunc(sorted, func(a, b []int32) int { return len(a) - len(b) })
		at := rng.IntN(groups) * batch
		return ours, sorted[at : at+batch]
	}
	return ours, ours
}

// work tells how much of the operations' ratio became speed.
func (r *row) work() string {
	if r.Work == 0 {
		return ""
	}
	return fmt.Sprintf("(%.2f of %.2f)", r.Ratio/r.Work, r.Work)
}

// known is a share, where there is one.
func known(x float64) string {
	if x == 0 {
		return "–"
	}
	return fmt.Sprintf("%.2f", x)
}

// markdown is the table of all rows.
func markdown(m results.Machine, rows []row) string {
	var b strings.Builder
	fmt.Fprintf(&b, "# SmolLM2-135M beside transformers and llama.cpp\n\n%s\nMedians of alternating runs; a ratio above 1 means that ours is faster. Of the peak: of the machine's multiply-adds in registers\n"+
		"that our matrix products did in all of the time, or, where one text is written, of the speed at which it reads memory that our reading\nof the weights was. Peak memory is of the whole process. Dense: 4 pieces of 512 tokens; ragged: 8 paragraphs.\n\n", m)
	b.WriteString("| what | beside | unit | ours | theirs | ratio | of the rounds | ours, of the peak | MB, ours | MB, theirs | to reach |\n| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |\n")
	for _, r := range rows {
		fmt.Fprintf(&b, "| %s | %s | %s | %.4g | %.4g | %.2f %s | %.2f … %.2f | %s | %.0f | %.0f | %s |\n", r.Name, r.Peer, r.Unit, r.Ours, r.Their, r.Ratio, r.work(), r.Least, r.Most, known(r.Share), r.OurPeak, r.PeerPeak, r.Reach)
	}
	return b.String()
}
