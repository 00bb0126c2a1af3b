// Command gemm measures matrix products.
//
// Without flags it answers requests, one JSON object a line on standard input,
// with one a line on standard output, so that a driver can alternate it with a
// peer:
//
//	{"shape":[425,384,1536],"trans":"nt","threads":2,"prec":"fp32","seconds":0.5}
//	{"gflops":71.2,"best":73.0}
//
// shape is m, n, k; trans has an n or t each for A and B ("nt" is x·Wᵀ, a linear
// layer); prec is fp32 or bf16, with " packed" behind it when B is packed once,
// before the measurement, or "bf16 autocast", which differs from bf16 for a peer
// only: its operands are float32 too. gflops is the median over the time, best the
// fastest run.
//
// With -peer it starts a peer that speaks the same protocol, for example
//
//	gemm -peer "python bench/peers/gemm.py"
//
// alternates with it over the shapes of fine-tuning, prints a table of ratios,
// and with -out keeps it as DIR/<date>-<cpu>-gemm.json and .md.
package main

import (
	"bufio"
	"encoding/json"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"time"

	"mlpfusion/bench/internal/results"
	"mlpfusion/kernel"
)

// request is one measurement to make.
type request struct {
	Shape   [3]int  `json:"shape"`
	Trans   string  `json:"trans"`
	Threads int     `json:"threads"`
	Prec    string  `json:"prec"`
	Seconds float64 `json:"seconds"`
}

// answer holds speeds in 10⁹ floating-point operations a second; a product has
// 2mnk of them.
type answer struct {
	GFLOPS float64 `json:"gflops"`
	Best   float64 `json:"best"`
	Error  string  `json:"error,omitempty"`
}

func main() {
	peer := flag.String("peer", "", "command of a peer to compare with")
	rounds := flag.Int("rounds", 5, "alternations of a comparison")
	seconds := flag.Float64("seconds", 0.3, "time of one measurement of a comparison")
	out := flag.String("out", "", "folder in which a comparison is kept")
	only := flag.String("only", "", "compare only the shapes that match this regular expression, such as 'fp32 nt 425'")
	bf16 := flag.Bool("bf16", false, "compare bfloat16 products too")
	flag.Parse()
	var err error
	if *peer == "" {
		err = serve()
	} else {
		fmt.Println(results.ThisMachine())
		err = compare(*peer, *rounds, *seconds, *out, *bf16, *only)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "gemm:", err)
		os.Exit(1)
	}
}

func serve() error {
	in := bufio.NewScanner(os.Stdin)
	out := json.NewEncoder(os.Stdout)
	for in.Scan() {
		var r request
		if err := json.Unmarshal(in.Bytes(), &r); err != nil {
			return fmt.Errorf("request %q: %w", in.Text(), err)
		}
		if err := out.Encode(measure(r)); err != nil {
			return err
		}
	}
	return in.Err()
}

// precision reads a request's prec.
func precision(name string) (prec kernel.Precision, packed, ok bool) {
	name, packed = strings.CutSuffix(name, " packed")
	switch name {
	case "fp32":
		return kernel.FP32, packed, true
	case "bf16", "bf16 autocast":
		return kernel.BF16, packed, true
	}
	return 0, false, false
}

// measure repeats the product until the time is up.
func measure(r request) answer {
	prec, packed, ok := precision(r.Prec)
	if !ok || len(r.Trans) != 2 {
		return answer{Error: fmt.Sprintf("unknown prec %q or trans %q", r.Prec, r.Trans)}
	}
	p := kernel.NewPool(r.Threads)
	defer p.Close()
	m, n, k := r.Shape[0], r.Shape[1], r.Shape[2]
	a, b := matrix(m, k, r.Trans[0] == 't'), matrix(k, n, r.Trans[1] == 't')
	c := make([]float32, m*n)
	flops := 2 * float64(m) * float64(n) * float64(k)
	run := func() { p.Gemm(prec, m, n, k, a, b, c, n, kernel.Epilogue{}) }
	if packed {
		w := p.PackB(prec, k, n, b)
		run = func() { p.GemmPacked(m, a, w, c, n, kernel.Epilogue{}) }
	}
	run()
	var times []float64
	for start := time.Now(); len(times) < 3 || time.Since(start).Seconds() < r.Seconds; {
		t := time.Now()
		run()
		times = append(times, time.Since(t).Seconds())
	}
	slices.Sort(times)
	return answer{GFLOPS: flops / times[len(times)/2] / 1e9, Best: flops / times[0] / 1e9}
}

func matrix(rows, cols int, t bool) kernel.Mat {
	if t {
		rows, cols = cols, rows
	}
	r := rand.New(rand.NewPCG(1, 1))
	x := make([]float32, rows*cols)
	for i := range x {
		x[i] = r.Float32() - 0.5
	}
	return kernel.Mat{Data: x, Stride: cols, T: t}
}
