package train

import (
	"math"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"mlpfusion/checkpoint"
	"mlpfusion/internal/golden"
	"mlpfusion/kernel"
	"mlpfusion/model"
	"mlpfusion/nn"
	"mlpfusion/task"
)

// TestMiniLM follows PyTorch on the real MiniLM: hidden states and logits
// within 1e-4, every parameter's gradient within 1e-3 of its norm, ten AdamW
// losses within 1e-4. What PyTorch computed is written by scripts/peers/minilm.py
// to the folder that MLPFUSION_PEER_MINILM names (see scripts/test-peers.sh).
func TestMiniLM(t *testing.T) {
	source, peer := os.Getenv("MLPFUSION_MINILM"), os.Getenv("MLPFUSION_PEER_MINILM")
	if source == "" || peer == "" {
		t.Skip("MLPFUSION_MINILM and MLPFUSION_PEER_MINILM are not set: the real MiniLM is not compared")
	}
	g := golden.Open(t, filepath.Join(peer, "golden.safetensors"))
	dir, err := checkpoint.OpenDir(source)
	if err != nil {
		t.Fatal(err)
	}
	defer dir.Close()
	m, _, err := model.Load(dir, model.LoadOptions{Head: model.Classification, Labels: []string{"negative", "positive"}, NewHead: true})
	if err != nil {
		t.Fatal(err)
	}
	m.Config.Dropout = model.Dropout{}
	heads := 0
	for _, p := range m.Params {
		if strings.HasPrefix(p.Name, "classifier.") {
			copy(p.Data, g.Floats("head."+p.Name))
			heads++
		}
	}
	if heads != 2 {
		t.Fatalf("set %d tensors of the classifier", heads)
	}
	pool := kernel.NewPool(2)
	defer pool.Close()
	batches := []*task.Batch{batch(g, "a"), batch(g, "b")}

	tape := nn.NewTape(pool)
	tape.Train = true
	tape.Reset(0)
	m.ZeroGrad()
	out := &model.Output{AllTokens: true, KeepHidden: true}
	b := batches[0]
	in := InputOf(b)
	m.ForwardAll(tape, &in, out)
	var worst float64
	for i, h := range append(out.Hidden, out.Logits) {
		name := "hidden." + strconv.Itoa(i)
		if i == len(out.Hidden) {
			name = "logits"
		}
		want := g.Floats(name)
		if len(want) != len(h.Data) {
			t.Fatalf("%s has %d values, want %d", name, len(h.Data), len(want))
		}
		var d float64
		for j := range want {
			d = max(d, math.Abs(float64(h.Data[j]-want[j])))
		}
		if d > 1e-4 {
			t.Errorf("%s is off by %g", name, d)
		}
		worst = max(worst, d)
	}
	t.Logf("hidden states and logits: farthest %.1e", worst)

	tape.Loss(nn.CrossEntropy, out.Logits, b.Labels)
	tape.Backward()
	worst = 0
	for _, p := range m.Params {
		p.Weight.SettleGrad()
		var d, norm float64
		for j, w := range g.Floats("grad." + p.Name) {
			d += math.Pow(float64(p.Grad[j]-w), 2)
			norm += math.Pow(float64(w), 2)
		}
		d, norm = math.Sqrt(d), math.Sqrt(norm)
		// A key's bias moves every score of a query alike: its gradient is
		// zero but for rounding.
		if norm < 1e-9 {
			if d > 1e-5 {
				t.Errorf("%s: gradient is off by %g where it should vanish", p.Name, d)
			}
			continue
		}
		if d > 1e-3*norm {
			t.Errorf("%s: gradient is off by %g of its norm", p.Name, d/norm)
		}
		worst = max(worst, d/norm)
	}
	t.Logf("gradients of %d parameters: farthest %.1e of the norm", len(m.Params), worst)

	s := NewStepper(pool, m, PaperOptimizer, kernel.FP32, 0)
	worst = 0
	for i, want := range g.Floats("losses") {
		d := math.Abs(s.Step(batches[i%2], 1e-4) - float64(want))
		if d > 1e-4 {
			t.Errorf("step %d: loss is off by %g", i, d)
		}
		worst = max(worst, d)
	}
	t.Logf("ten AdamW losses: farthest %.1e", worst)
}
