// Command ntk measures the neural tangent kernel of an MLP block on SST-2's dev
// set.
//
// Without flags it answers requests, one JSON object a line on standard input,
// with one a line on standard output; bench/peers/ntk.py speaks the same
// protocol:
//
//	{"model":"minilm","n":872,"kernel":"adam","block":0,"threads":2}
//	{"seconds":14.1,"gradients":5.0,"trace":1234.5,"peak_rss_mb":480.2}
//
// model is minilm, or bert-base for its shape with random weights; gradients is
// the share of the passes through the model. With -peer it starts a peer, for
// example
//
//	go run ./bench/ntk -peer "python bench/peers/ntk.py" -n 218
//
// alternates with it and prints a table of ratios, of time and of processor time
// (on a machine that others use, with -threads 1, the latter says more: a peer's
// threads that wait for each other in a loop are counted too). MLPFUSION_MINILM names the
// directory of all-MiniLM-L6-v2, MLPFUSION_DATA the folder of the data sets.
package main

import (
	"bufio"
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"mlpfusion/checkpoint"
	"mlpfusion/internal/peak"
	"mlpfusion/kernel"
	"mlpfusion/model"
	"mlpfusion/ntk"
	"mlpfusion/task"
	"mlpfusion/tokenize"
)

type request struct {
	Model   string `json:"model"`
	N       int    `json:"n"`
	Kernel  string `json:"kernel"`
	Block   int    `json:"block"`
	Threads int    `json:"threads"`
}

type answer struct {
	Seconds   float64 `json:"seconds"`
	Gradients float64 `json:"gradients"`
	CPU       float64 `json:"cpu_seconds"` // of all threads
	Trace     float64 `json:"trace"`
	Peak      float64 `json:"peak_rss_mb"`
	Error     string  `json:"error,omitempty"`
}

func main() {
	peer := flag.String("peer", "", "command of a peer to compare with")
	rounds := flag.Int("rounds", 3, "alternations of a comparison")
	n := flag.Int("n", 218, "examples of a comparison")
	threads := flag.Int("threads", 2, "threads of each side of a comparison")
	flag.Parse()
	var err error
	if *peer == "" {
		err = serve()
	} else {
		err = compare(*peer, *rounds, *n, *threads)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "ntk:", err)
		os.Exit(1)
	}
}

func serve() error {
	in := bufio.NewScanner(os.Stdin)
	out := json.NewEncoder(os.Stdout)
	for in.Scan() {
		q := request{Model: "minilm", N: 872, Kernel: "adam", Threads: 2}
		if err := json.Unmarshal(in.Bytes(), &q); err != nil {
			return fmt.Errorf("request %q: %w", in.Text(), err)
		}
		a, err := measure(q)
		if err != nil {
			a.Error = err.Error()
		}
		if err := out.Encode(a); err != nil {
			return err
		}
	}
	return in.Err()
}

func measure(q request) (answer, error) {
	kind, err := ntk.ParseKind(q.Kernel)
	if err != nil {
		return answer{}, err
	}
	in, err := examples(q.N)
	if err != nil {
		return answer{}, err
	}
	m, err := load(q.Model)
	if err != nil {
		return answer{}, err
	}
	pool := kernel.NewPool(q.Threads)
	defer pool.Close()
	// Lets the peak resident size start again at the present one (Linux).
	peak.Reset()
	start, cpu := time.Now(), cpuSeconds()
	var built time.Time
	kernels, err := ntk.Compute(context.Background(), pool, m, in, ntk.Options{Kind: kind, Blocks: []int{q.Block},
		Progress: func(block string, _ float64) {
			if block == "" {
				built = time.Now()
			}
		}})
	if err != nil {
		return answer{}, err
	}
	a := answer{Seconds: time.Since(start).Seconds(), Gradients: built.Sub(start).Seconds(), CPU: cpuSeconds() - cpu, Peak: float64(peak.Bytes()) / (1 << 20)}
	for i := range kernels[0].N {
		a.Trace += float64(kernels[0].Data[i*kernels[0].N+i])
	}
	return a, nil
}

// examples are the first n sentences of SST-2's dev set.
func examples(n int) (*model.Input, error) {
	tok, err := tokenize.Load(os.Getenv("MLPFUSION_MINILM"))
	if err != nil {
		return nil, fmt.Errorf("MLPFUSION_MINILM: %w", err)
	}
	spec, err := task.Lookup("sst2")
	if err != nil {
		return nil, err
	}
	data := os.Getenv("MLPFUSION_DATA")
	if data == "" {
		data = filepath.Join("..", "shared", "data")
	}
	set, err := task.Load(spec, filepath.Join(data, "SST-2"), task.Columns{})
	if err != nil {
		return nil, err
	}
	in := &model.Input{Offsets: []int32{0}}
	for _, e := range set.Dev[:min(n, len(set.Dev))] {
		in.IDs = append(in.IDs, tok.Encode(e.Text, nil, 512).IDs...)
		in.Offsets = append(in.Offsets, int32(len(in.IDs)))
	}
	return in, nil
}

// load returns MiniLM with a new head, or random weights in BERT-base's shape.
func load(name string) (*model.Model, error) {
	if name != "bert-base" {
		dir, err := checkpoint.OpenDir(os.Getenv("MLPFUSION_MINILM"))
		if err != nil {
			return nil, err
		}
		defer dir.Close()
		m, _, err := model.Load(dir, model.LoadOptions{NewHead: true, Head: model.Classification, Labels: []string{"0", "1"}})
		return m, err
	}
	cfg, err := model.ParseConfig([]byte(`{"model_type": "bert", "vocab_size": 30522, "hidden_size": 768, "num_hidden_layers": 12, "num_attention_heads": 12, "intermediate_size": 3072}`))
	if err != nil {
		return nil, err
	}
	m, err := model.New(cfg)
	if err != nil {
		return nil, err
	}
	rng := rand.New(rand.NewPCG(1, 1))
	for _, t := range m.Tensors {
		for i := range t.Param.Data {
			switch t.Init {
			case model.Normal:
				t.Param.Data[i] = 0.02 * float32(rng.NormFloat64())
			case model.Ones:
				t.Param.Data[i] = 1
			}
		}
	}
	return m, nil
}

// cpuSeconds is the processor time of this process, 0 where the system does not
// tell.
func cpuSeconds() float64 {
	text, err := os.ReadFile("/proc/self/stat")
	if err != nil {
		return 0
	}
	fields := strings.Fields(string(text[strings.LastIndexByte(string(text), ')')+1:]))
	user, _ := strconv.ParseFloat(fields[11], 64)
	system, _ := strconv.ParseFloat(fields[12], 64)
	return (user + system) / 100
}
