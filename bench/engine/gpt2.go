package main

import (
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"mlpfusion/bench/internal/peer"
	"mlpfusion/bench/internal/results"
	"mlpfusion/checkpoint"
	"mlpfusion/kernel"
	"mlpfusion/model"
	"mlpfusion/task"
	"mlpfusion/tokenize"
	"mlpfusion/train"
)

// textRequest is a measurement of bench/peers/gpt2.py.
type textRequest struct {
	Layers  int      `json:"layers"`
	Prec    string   `json:"prec"`
	Threads int      `json:"threads"`
	Batches [][]text `json:"batches"`
}

// text is a sequence: what is read, and the id to be predicted at each token.
type text struct {
	IDs     []int32 `json:"ids"`
	Targets []int32 `json:"targets"`
}

// compareText alternates our training step of GPT-2's and DistilGPT-2's shape,
// with random weights, with PyTorch's, on the same random batches of eight
// WebNLG texts: ours without padding, theirs padded to the longest.
func compareText(args []string) error {
	f := flag.NewFlagSet("gpt2", flag.ExitOnError)
	python := f.String("python", "python3", "the peers' Python")
	rounds := f.Int("rounds", 3, "alternations")
	layers := f.Int("layers", 6, "6 is DistilGPT-2, 12 GPT-2")
	precision := f.String("prec", "fp32", "fp32 or bf16")
	out := f.String("out", "", "keep the row in this folder")
	if err := f.Parse(args); err != nil {
		return err
	}
	data, err := webnlg()
	if err != nil {
		return err
	}
	const threads = 2
	s, err := textStepper(*layers, threads, *precision)
	if err != nil {
		return err
	}
	transformers, err := peer.Start(*python, filepath.Join("bench", "peers", "gpt2.py"))
	if err != nil {
		return err
	}
	defer transformers.Close() //nolint:errcheck // its answers have come
	var ours, theirs, ratios, limits []float64
	for round := -1; round < *rounds; round++ { // the first warms both up
		q := textRequest{Layers: *layers, Prec: *precision, Threads: threads}
		var times, flops []float64
		rng := rand.New(rand.NewPCG(uint64(round+1), 7))
		for range 2 {
			rows := make([]int32, 8)
			for j := range rows {
				rows[j] = int32(rng.IntN(data.Len()))
			}
			var b task.Batch
			data.Fill(&b, rows)
			var batch []text
			for j, from := range b.Offsets[:len(rows)] {
				batch = append(batch, text{b.IDs[from:b.Offsets[j+1]], b.Targets[from:b.Offsets[j+1]]})
			}
			q.Batches = append(q.Batches, batch)
			begin := time.Now()
			s.Step(&b, 2e-5)
			times = append(times, time.Since(begin).Seconds())
			flops = append(flops, stepFLOPs(s.Model, &b))
		}
		time.Sleep(results.Settle)
		a, err := peer.Ask[answer](transformers, q)
		if err != nil {
			return err
		}
		x, y := results.Median(times), a.Seconds
		limit := atPeak(request{Prec: *precision, Threads: threads}, y, results.Median(flops))
		if round < 0 {
			continue
		}
		ours, theirs, ratios = append(ours, x), append(theirs, y), append(ratios, y/x)
		limits = append(limits, limit)
		fmt.Fprintf(os.Stderr, "round %d: ours %.3f s, theirs %.3f s, ratio %.2f, at the peak %s\n", round, x, y, y/x, known(limit))
	}
	row := textRow{*layers, *precision, threads, results.Median(ours), results.Median(theirs), results.Median(ratios), slices.Min(ratios), slices.Max(ratios), results.Median(limits)}
	table, err := results.Write(*out, "gpt2", []textRow{row}, func(r textRow) string { return fmt.Sprint(r.Layers, r.Prec, r.Threads) }, textTable)
	fmt.Print(table)
	return err
}

// textRow is a line of the table; times are seconds a step, medians of the
// rounds, and of the ratios also the least and the most.
type textRow struct {
	Layers  int     `json:"layers"`
	Prec    string  `json:"prec"`
	Threads int     `json:"threads"`
	Ours    float64 `json:"ours"`
	Theirs  float64 `json:"theirs"`
	Ratio   float64 `json:"ratio"`
	Least   float64 `json:"least"`
	Most    float64 `json:"most"`
	Limit   float64 `json:"limit,omitempty"` // the ratio at the peak, see atPeak
}

func textTable(m results.Machine, rows []textRow) string {
	var b strings.Builder
	fmt.Fprintf(&b, "# A language model's training step against PyTorch and transformers\n\n%s\nGPT-2's shape (768, 3072, 50257 words), random weights, random batches of 8 WebNLG texts: ours end to end, theirs padded to the longest and masked.\n"+atPeakNote, m)
	b.WriteString("| layers | precision | threads | ours, s | theirs, s | ratio | of the rounds | at the peak |\n| --- | --- | --- | --- | --- | --- | --- | --- |\n")
	for _, r := range rows {
		fmt.Fprintf(&b, "| %d | %s | %d | %.3f | %.3f | %.2f | %.2f … %.2f | %s |\n", r.Layers, r.Prec, r.Threads, r.Ours, r.Theirs, r.Ratio, r.Least, r.Most, known(r.Limit))
	}
	return b.String()
}

func textStepper(layers, threads int, precision string) (*train.Stepper, error) {
	cfg, err := checkpoint.ParseConfig("config.json", fmt.Appendf(nil, `{"model_type": "gpt2", "n_layer": %d}`, layers))
	if err != nil {
		return nil, err
	}
	m, err := model.FromScratch(cfg, model.LoadOptions{})
	if err != nil {
		return nil, err
	}
	return train.NewStepper(kernel.NewPool(threads), m, train.PaperOptimizer, prec(request{Prec: precision}), 1), nil
}

// webnlg reads the texts of WebNLG's dev set in LoRA's form with GPT-2's
// tokenizer.
func webnlg() (*task.Encoded, error) {
	root := filepath.Dir(sst2())
	tok, err := tokenize.Load(filepath.Join(root, "tokenizers", "gpt2"))
	if err != nil {
		return nil, err
	}
	spec, err := task.Lookup("webnlg")
	if err != nil {
		return nil, err
	}
	set, err := task.Load(spec, filepath.Join(root, "WebNLG", "dev.json"), task.Columns{})
	if err != nil {
		return nil, err
	}
	const end = 50256
	return task.EncodeText(tok, set.Train, task.TextFormat{End: end, Length: 512, Vocab: tok.VocabSize()}, nil)
}
