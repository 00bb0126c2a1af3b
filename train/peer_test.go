package train

import (
	"fmt"
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
		golden.Near(t, name, h.Data, want, 1e-4)
		worst = max(worst, golden.Largest(h.Data, want))
	}
	t.Logf("hidden states and logits: farthest %.1e", worst)

	tape.Loss(nn.CrossEntropy, out.Logits, b.Labels)
	tape.Backward()
	worst = 0
	for _, p := range m.Params {
		p.Weight.SettleGrad()
		want := g.Floats("grad." + p.Name)
		// A key's bias moves every score of a query alike: its gradient is
		// zero but for rounding.
		if golden.Norm(want) < 1e-9 {
			golden.Near(t, p.Name+": gradient", p.Grad(), want, 1e-5)
			continue
		}
		golden.NearNorm(t, p.Name+": gradient", p.Grad(), want, 1e-3)
		worst = max(worst, golden.Relative(p.Grad(), want))
	}
	t.Logf("gradients of %d parameters: farthest %.1e of the norm", len(m.Params), worst)

	s := NewStepper(pool, m, PaperOptimizer, kernel.FP32, 0)
	worst = 0
	for i, want := range g.Floats("losses") {
		loss := s.Step(batches[i%2], 1e-4)
		golden.NearValue(t, fmt.Sprintf("step %d: loss", i), loss, float64(want), 1e-4)
		worst = max(worst, math.Abs(loss-float64(want)))
	}
	t.Logf("ten AdamW losses: farthest %.1e", worst)
}
