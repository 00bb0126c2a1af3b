package main

import (
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"time"

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
	Warmup  int      `json:"warmup"`
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
	peer, err := start(*python, filepath.Join("bench", "peers", "gpt2.py"))
	if err != nil {
		return err
	}
	defer peer.close()
	var ours, theirs, ratios []float64
	for round := range *rounds {
		q := textRequest{Layers: *layers, Prec: *precision, Threads: threads, Warmup: 1}
		var times []float64
		rng := rand.New(rand.NewPCG(uint64(round), 7))
		for i := range q.Warmup + 2 {
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
			if i >= q.Warmup {
				times = append(times, time.Since(begin).Seconds())
			}
		}
		time.Sleep(settle)
		a, err := peer.ask(q)
		if err != nil {
			return err
		}
		time.Sleep(settle)
		x, y := median(times), a.Seconds
		ours, theirs, ratios = append(ours, x), append(theirs, y), append(ratios, y/x)
		fmt.Fprintf(os.Stderr, "round %d: ours %.3f s, theirs %.3f s, ratio %.2f\n", round, x, y, y/x)
	}
	cpu, _ := cpuInfo()
	fmt.Printf("GPT-2, %d layers, WebNLG batches of 8, %s, %d threads, %s: ours %.3f s, theirs %.3f s, ratio %.2f (%.2f … %.2f)\n",
		*layers, *precision, threads, cpu, median(ours), median(theirs), median(ratios), slices.Min(ratios), slices.Max(ratios))
	return nil
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
	return task.EncodeText(tok, set.Train, task.TextFormat{End: end, Length: 512}, nil), nil
}
