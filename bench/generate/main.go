// Command generate measures greedy generation beside transformers, in turns in
// one run: GPT-2 at its real shape with random weights, 32 prompt tokens and 32
// new ones, batches of 1 and of 32.
//
//	go run ./bench/generate -python PYTHON
package main

import (
	"context"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"runtime"
	"time"

	"mlpfusion/bench/internal/peer"
	"mlpfusion/bench/internal/results"
	"mlpfusion/checkpoint"
	"mlpfusion/generate"
	"mlpfusion/kernel"
	"mlpfusion/model"
)

// row is one measurement: the median tokens a second of both.
type row struct {
	Batch     int     `json:"batch"`
	Precision string  `json:"precision"`
	Threads   int     `json:"threads"`
	Ours      float64 `json:"mlpfusion_tokens_per_second"`
	Peer      float64 `json:"transformers_tokens_per_second"`
	Same      float64 `json:"same_tokens"` // share
}

func main() {
	python := flag.String("python", "python3", "Python with the peers")
	out := flag.String("out", "bench/results", "folder of the results")
	rounds := flag.Int("rounds", 3, "measurements of each")
	flag.Parse()
	if err := run(*python, *out, *rounds); err != nil {
		fmt.Fprintln(os.Stderr, "generate:", err)
		os.Exit(1)
	}
}

func run(python, out string, rounds int) error {
	dir, err := os.MkdirTemp("", "generate")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	transformers, err := peer.Start(python, "bench/peers/generate.py", dir)
	if err != nil {
		return err
	}
	defer transformers.Close() //nolint:errcheck // its answers have come
	type answer struct {
		Seconds float64
		Tokens  [][]int32
	}

	var rows []row
	pool := kernel.NewPool(0)
	defer pool.Close()
	const length, tokens = 32, 32
	for _, precision := range []string{"fp32", "bf16"} {
		var g *generate.Generator
		for _, batch := range []int{1, 32} {
			random := rand.New(rand.NewPCG(1, 1))
			prompts := make([][]int32, batch)
			for i := range prompts {
				for range length {
					prompts[i] = append(prompts[i], random.Int32N(50257))
				}
			}
			var ours, theirs []float64
			same, all := 0, 0
			for range rounds + 1 { // the first warms up
				a, err := peer.Ask[answer](transformers, map[string]any{"prompts": prompts, "tokens": tokens, "prec": precision, "threads": runtime.GOMAXPROCS(0)})
				if err != nil {
					return err
				}
				if g == nil { // the peer has saved the model
					if g, err = load(dir, pool, precision); err != nil {
						return err
					}
				}
				time.Sleep(results.Settle)
				start := time.Now()
				r, err := g.Run(context.Background(), prompts, generate.Options{MaxNewTokens: tokens}, generate.Watch{})
				if err != nil {
					return err
				}
				ours = append(ours, float64(batch*tokens)/time.Since(start).Seconds())
				theirs = append(theirs, float64(batch*tokens)/a.Seconds)
				for i := range r {
					for j, id := range r[i].Tokens {
						all++
						if id == a.Tokens[i][j] {
							same++
						}
					}
				}
			}
			rows = append(rows, row{batch, precision, pool.Workers(), results.Median(ours[1:]), results.Median(theirs[1:]), float64(same) / float64(all)})
		}
	}
	path, err := results.Write(out, "generate", rows, func(r row) string { return fmt.Sprint(r.Precision, r.Batch, r.Threads) }, table)
	if err == nil {
		fmt.Println(path)
	}
	return err
}

func load(path string, pool *kernel.Pool, precision string) (*generate.Generator, error) {
	dir, err := checkpoint.OpenDir(path)
	if err != nil {
		return nil, err
	}
	defer dir.Close()
	m, _, err := model.Load(dir, model.LoadOptions{})
	if err != nil {
		return nil, err
	}
	prec := kernel.FP32
	if precision == "bf16" {
		prec = kernel.BF16
	}
	return generate.New(pool, m, prec)
}

func table(m results.Machine, rows []row) string {
	s := fmt.Sprintf("# Greedy generation beside transformers\n\nGreedy generation, GPT-2 at its real shape with random weights, 32 prompt and 32 new tokens, the prompt's time included; both in turns.\n\n%s\n\n"+
		"| precision | batch | threads | mlpfusion tokens/s | transformers tokens/s | ratio | same tokens |\n|---|---|---|---|---|---|---|\n", m)
	for _, r := range rows {
		s += fmt.Sprintf("| %s | %d | %d | %.1f | %.1f | %.2f | %.1f %% |\n", r.Precision, r.Batch, r.Threads, r.Ours, r.Peer, r.Ours/r.Peer, 100*r.Same)
	}
	return s
}
