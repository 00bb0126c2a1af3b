package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"time"

	"mlpfusion/checkpoint"
	"mlpfusion/generate"
	"mlpfusion/internal/peak"
	"mlpfusion/kernel"
	"mlpfusion/model"
	"mlpfusion/task"
	"mlpfusion/train"
)

// request is one measurement; bench/peers/decoder.py and llama.py understand the same.
type request struct {
	What    string    `json:"what"` // step, adapt (a step of an adapter), perplexity or generate
	Prec    string    `json:"prec"` // fp32, bf16 or int8
	Threads int       `json:"threads"`
	Texts   [][]int32 `json:"texts"`
	Tokens  int       `json:"tokens,omitempty"` // to be written
	Fused   bool      `json:"fused,omitempty"`  // ours: half the units of each block, with P
	Compile bool      `json:"compile,omitempty"`
	Base    string    `json:"base,omitempty"`      // of an adapter: fp32, bf16 or int8, which is ours alone
	Again   bool      `json:"recompute,omitempty"` // ours: layers run again for their gradients
}

// answer holds what all sides tell.
type answer struct {
	Seconds float64   `json:"seconds"`
	Prompt  float64   `json:"prompt_seconds,omitempty"` // of Seconds, until the first token
	Loss    float64   `json:"loss,omitempty"`
	Written [][]int32 `json:"written,omitempty"`
	Peak    float64   `json:"peak_rss_mb"`
	FLOPs   float64   `json:"flops,omitempty"` // ours, of the products
	Error   string    `json:"error,omitempty"`
}

// server keeps what requests share: one model, as trainer or as writer.
type server struct {
	key     string
	pool    *kernel.Pool
	model   *model.Model
	stepper *train.Stepper
	writer  *generate.Generator
}

func serve(in io.Reader, out io.Writer) error {
	s := &server{}
	dec, enc := json.NewDecoder(in), json.NewEncoder(out)
	for {
		var q request
		if err := dec.Decode(&q); err == io.EOF {
			return nil
		} else if err != nil {
			return err
		}
		a, err := s.handle(q)
		if err != nil {
			a.Error = err.Error()
		}
		a.Peak = float64(peak.Bytes()) / (1 << 20)
		if err := enc.Encode(a); err != nil {
			return err
		}
	}
}

func (s *server) handle(q request) (answer, error) {
	if err := s.use(q); err != nil {
		return answer{}, err
	}
	switch q.What {
	case "step", "adapt":
		return s.step(q), nil
	case "perplexity":
		return s.perplexity(q)
	case "generate":
		return s.generate(q)
	}
	return answer{}, fmt.Errorf("what: expected step, perplexity or generate, found %q", q.What)
}

// use makes the model and workers a request asks for, unless they are there.
func (s *server) use(q request) error {
	key := fmt.Sprint(q.What, q.Prec, q.Threads, q.Fused, q.Base, q.Again)
	if s.key == key {
		return nil
	}
	if s.pool != nil {
		s.pool.Close()
	}
	*s = server{key: key, pool: kernel.NewPool(q.Threads)}
	var err error
	if q.What == "adapt" {
		s.model, err = loadAdapted(q)
	} else {
		s.model, err = load(q.Fused)
	}
	if err != nil {
		return err
	}
	switch q.What {
	case "step", "adapt":
		s.stepper = train.NewStepper(s.pool, s.model, train.PaperOptimizer, precision(q.Prec), 1)
	case "generate":
		s.writer, err = generate.New(s.pool, s.model, precision(q.Prec))
	}
	return err
}

func precision(name string) kernel.Precision {
	return map[string]kernel.Precision{"fp32": kernel.FP32, "bf16": kernel.BF16, "int8": kernel.INT8}[name]
}

func directory() string { return os.Getenv("MLPFUSION_SMOLLM2") }

// loadAdapted reads the model with a new adapter on all its layers.
func loadAdapted(q request) (*model.Model, error) {
	dir, err := checkpoint.OpenDir(directory())
	if err != nil {
		return nil, fmt.Errorf("MLPFUSION_SMOLLM2: %w", err)
	}
	defer dir.Close()
	opt := model.LoadOptions{Head: model.LanguageModel, Seed: 1}
	if opt.Adapter, err = model.NewAdapter(dir, opt, "SmolLM2", model.AdapterOptions{Rank: 16, Alpha: 32, Targets: []string{"all"}}); err != nil {
		return nil, err
	}
	if q.Base != "fp32" {
		opt.Base = model.Base(q.Base)
	}
	m, _, err := model.Load(dir, opt)
	if err == nil && q.Again {
		err = m.Recompute(true)
	}
	return m, err
}

// load reads the model, or makes one of its shape with half the units of each block,
// P and weights of zero, which is right for timing only.
func load(fused bool) (*model.Model, error) {
	dir, err := checkpoint.OpenDir(directory())
	if err != nil {
		return nil, fmt.Errorf("MLPFUSION_SMOLLM2: %w", err)
	}
	defer dir.Close()
	if !fused {
		m, _, err := model.Load(dir, model.LoadOptions{Head: model.LanguageModel})
		return m, err
	}
	cfg, err := model.ReadConfig(dir)
	if err != nil {
		return nil, err
	}
	cfg.Head = model.LanguageModel
	_, blocks, err := model.Describe(cfg)
	if err != nil {
		return nil, err
	}
	cfg.Blocks = map[string]model.BlockConfig{}
	for _, b := range blocks {
		cfg.Blocks[b.Name] = model.BlockConfig{Width: b.Width / 2, ClusterSizes: true}
	}
	m, err := model.New(cfg)
	if err != nil {
		return nil, err
	}
	for _, t := range m.Tensors {
		for i := range t.Fixed { // P
			t.Fixed[i] = 2
		}
	}
	return m, nil
}

// step takes one training step, on every token of the texts but each one's first.
func (s *server) step(q request) answer {
	b := task.Batch{Offsets: []int32{0}}
	for _, t := range q.Texts {
		b.IDs, b.Targets = append(b.IDs, t[:len(t)-1]...), append(b.Targets, t[1:]...)
		b.Offsets = append(b.Offsets, int32(len(b.IDs)))
	}
	start := time.Now()
	loss := s.stepper.Step(&b, 2e-5)
	products := 3.0 // of each one forward
	if q.What == "adapt" {
		products = 2 // the matrices have no gradient
	}
	return answer{Seconds: time.Since(start).Seconds(), Loss: loss, FLOPs: products * forwardFLOPs(s.model, q.Texts)}
}

func (s *server) perplexity(q request) (answer, error) {
	var data task.Encoded
	data.Offsets = []int{0}
	for _, t := range q.Texts {
		data.IDs, data.Targets = append(data.IDs, t[:len(t)-1]...), append(data.Targets, t[1:]...)
		data.Offsets = append(data.Offsets, len(data.IDs))
	}
	start := time.Now()
	sum, n, err := train.NewEvaluator(s.pool, precision(q.Prec)).Likelihood(context.Background(), s.model, &data, nil)
	return answer{Seconds: time.Since(start).Seconds(), Loss: -sum / float64(n), FLOPs: forwardFLOPs(s.model, q.Texts)}, err
}

func (s *server) generate(q request) (answer, error) {
	var a answer
	start := time.Now()
	results, err := s.writer.Run(context.Background(), q.Texts, generate.Options{MaxNewTokens: q.Tokens}, generate.Watch{Token: func(int, int32) {
		if a.Prompt == 0 {
			a.Prompt = time.Since(start).Seconds()
		}
	}})
	a.Seconds = time.Since(start).Seconds()
	for _, r := range results {
		a.Written = append(a.Written, r.Tokens)
	}
	a.FLOPs = promptFLOPs(s.model, q.Texts)
	return a, err
}
