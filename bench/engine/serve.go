package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"time"

	"mlpfusion/bench/internal/results"
	"mlpfusion/bench/internal/shapes"
	"mlpfusion/internal/peak"
	"mlpfusion/kernel"
	"mlpfusion/task"
	"mlpfusion/tokenize"
	"mlpfusion/train"
)

// request is one measurement; the peers understand the same.
type request struct {
	Engine  string    `json:"engine,omitempty"` // evaluation: of the peer
	Model   string    `json:"model"`
	Mode    string    `json:"mode,omitempty"` // random, grouped, pad128, dense
	Order   string    `json:"order,omitempty"`
	Prec    string    `json:"prec"`
	Threads int       `json:"threads"`
	Steps   int       `json:"steps,omitempty"`
	Warmup  int       `json:"warmup"`
	Batch   int       `json:"batch,omitempty"` // sequences; 0: 32
	FFN     int       `json:"ffn,omitempty"`
	Fused   bool      `json:"fused,omitempty"` // ours: the last two thirds at a quarter, with P
	Rows    [][]int32 `json:"rows,omitempty"`
	Repeat  int       `json:"repeat,omitempty"`
	Cache   string    `json:"cache,omitempty"`
	Attn    string    `json:"attn,omitempty"` // PyTorch's attention; best when empty
	Ours    bool      `json:"eval,omitempty"` // ours: an evaluation
}

// answer holds what both sides tell.
type answer struct {
	Seconds   float64   `json:"seconds_per_step,omitempty"`
	All       []float64 `json:"all"`
	Sentences float64   `json:"sentences_per_second,omitempty"`
	Tokens    float64   `json:"tokens_per_step,omitempty"`
	Peak      float64   `json:"peak_rss_mb"`
	FLOPs     []float64 `json:"flops,omitempty"` // ours: of the products of each step, or of a sentence
	Error     string    `json:"error,omitempty"`
}

const denseLength = 128

// server keeps what requests share.
type server struct {
	train, dev *task.Encoded
	dense      *task.Encoded
	key        string
	stepper    *train.Stepper
	pool       *kernel.Pool
}

func serve(in io.Reader, out io.Writer) error {
	s := &server{}
	if err := s.load(); err != nil {
		return err
	}
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
		if err := enc.Encode(a); err != nil {
			return err
		}
	}
}

// load tokenizes SST-2 with MiniLM's tokenizer, which is bert-base-uncased's.
func (s *server) load() error {
	tok, err := tokenize.Load(minilm())
	if err != nil {
		return fmt.Errorf("MLPFUSION_MINILM: %w", err)
	}
	spec, err := task.Lookup("sst2")
	if err != nil {
		return err
	}
	set, err := task.Load(spec, sst2(), task.Columns{})
	if err != nil {
		return err
	}
	if s.train, err = task.Encode(tok, set.Train, tok.VocabSize(), 128, nil); err != nil {
		return err
	}
	if s.dev, err = task.Encode(tok, set.Dev, tok.VocabSize(), 128, nil); err != nil {
		return err
	}
	rows := len(s.train.IDs) / denseLength
	s.dense = &task.Encoded{IDs: s.train.IDs, Types: s.train.Types, Labels: s.train.Labels[:rows]}
	for i := range rows + 1 {
		s.dense.Offsets = append(s.dense.Offsets, i*denseLength)
	}
	return nil
}

func minilm() string { return os.Getenv("MLPFUSION_MINILM") }

func sst2() string {
	data := os.Getenv("MLPFUSION_DATA")
	if data == "" {
		data = filepath.Join("..", "shared", "data")
	}
	return filepath.Join(data, "SST-2")
}

func (s *server) handle(q request) (a answer, err error) {
	if err := s.use(q); err != nil {
		return a, err
	}
	if q.Ours {
		a, err = s.evaluate(q)
	} else {
		a, err = s.steps(q)
	}
	a.Peak = float64(peak.Bytes()) / (1 << 20)
	return a, err
}

// use makes the model and workers a request asks for, unless they are there.
func (s *server) use(q request) error {
	key := fmt.Sprint(q.Model, q.FFN, q.Fused, q.Threads, q.Prec)
	if s.key == key {
		return nil
	}
	s.key, s.stepper = "", nil // two models of BERT-base's size are too much
	runtime.GC()
	m, err := shapes.New(q.Model, minilm(), q.FFN, q.Fused)
	if err != nil {
		return err
	}
	if s.pool != nil {
		s.pool.Close()
	}
	s.pool = kernel.NewPool(q.Threads)
	s.stepper = train.NewStepper(s.pool, m, train.PaperOptimizer, prec(q), 1)
	s.key = key
	return nil
}

func prec(q request) kernel.Precision {
	if q.Prec == "bf16" {
		return kernel.BF16
	}
	return kernel.FP32
}

func (s *server) steps(q request) (a answer, err error) {
	data := s.train
	if q.Mode == "dense" {
		data = s.dense
	}
	batches := make([]task.Batch, len(q.Rows))
	for i, rows := range q.Rows {
		data.Fill(&batches[i], rows)
	}
	tokens := 0
	for i := range batches {
		start := time.Now()
		s.stepper.Step(&batches[i], 2e-5)
		if i >= q.Warmup {
			a.All = append(a.All, time.Since(start).Seconds())
			tokens += batches[i].Tokens()
			a.FLOPs = append(a.FLOPs, stepFLOPs(s.stepper.Model, &batches[i]))
		}
	}
	a.Seconds, a.Tokens = results.Median(a.All), float64(tokens)/float64(len(a.All))
	return a, nil
}

func (s *server) evaluate(q request) (a answer, err error) {
	eval := train.NewEvaluator(s.pool, prec(q))
	for i := range q.Repeat + 1 {
		start := time.Now()
		if _, err := eval.Logits(context.Background(), s.stepper.Model, s.dev, nil); err != nil {
			return a, err
		}
		if i > 0 {
			a.All = append(a.All, float64(s.dev.Len())/time.Since(start).Seconds())
		}
	}
	a.Sentences = results.Median(a.All)
	var all task.Batch // as one: the products of an encoder do not depend on how it is cut
	for _, o := range s.dev.Offsets {
		all.Offsets = append(all.Offsets, int32(o))
	}
	a.FLOPs = []float64{forwardFLOPs(s.stepper.Model, &all) / float64(s.dev.Len())}
	return a, nil
}
