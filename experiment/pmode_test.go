package experiment

import (
	"math"
	"slices"
	"strings"
	"testing"

	"mlpfusion/checkpoint"
	"mlpfusion/kernel"
	"mlpfusion/model"
	"mlpfusion/nn"
	"mlpfusion/task"
	"mlpfusion/train"
)

// withP is the tiny fused model in a mode, with only its last fused block's
// hidden units to be trained.
func withP(t *testing.T, mode string) (*model.Model, *model.MLP) {
	t.Helper()
	dir, err := checkpoint.OpenDir("../model/testdata/bert-fused")
	if err != nil {
		t.Fatal(err)
	}
	defer dir.Close()
	m, _, err := model.Load(dir, model.LoadOptions{})
	if err != nil {
		t.Fatal(err)
	}
	m.Config.Dropout = model.Dropout{}
	if err := applyMode(m, mode); err != nil {
		t.Fatal(err)
	}
	for _, b := range slices.Backward(m.Blocks) {
		if _, fused := m.Config.Blocks[b.Name]; fused {
			for _, w := range m.Weights {
				w.Frozen = w != b.MLP.Up.W && w != b.MLP.Up.B && w != b.MLP.Down.W
			}
			return m, b.MLP
		}
	}
	t.Fatal("no fused block")
	return nil, nil
}

// TestForward: where gradients pass P as if it were the identity, those of unit
// k's row of W1 and of its bias are 1/P_k of what they are with P kept, those of
// W2 the same. An Adam step does not see a factor of a whole row, so of one block
// alone both train to the same function.
func TestForward(t *testing.T) {
	pool := kernel.NewPool(2)
	defer pool.Close()
	batch := &task.Batch{IDs: []int32{5, 9, 30, 44, 7, 8, 61}, Types: make([]int32, 7), Offsets: []int32{0, 4, 7}, Labels: []float32{0, 1}}
	in := train.InputOf(batch)
	var grads [2][3][]float32
	var losses [2]float64
	var p []float32
	for i, mode := range []string{Keep, Forward} {
		m, mlp := withP(t, mode)
		tape := nn.NewTape(pool)
		tape.Train = true
		tape.Reset(0)
		m.ZeroGrad()
		m.Loss(tape, nn.CrossEntropy, &in, batch.Labels)
		tape.Backward()
		grads[i] = [3][]float32{mlp.Up.W.Grad, mlp.Up.B.Grad, mlp.Down.W.Grad}
		p = mlp.ClusterSizes

		m, _ = withP(t, mode)
		s := train.NewStepper(pool, m, train.OptimizerConfig{Beta1: 0.9, Beta2: 0.98, Eps: 1e-30}, kernel.FP32, 0)
		for range 6 {
			losses[i] = s.Step(batch, 1e-3)
		}
	}
	if !(math.Abs(losses[1]-losses[0]) <= 1e-5*losses[0]) {
		t.Errorf("the loss after five steps is %g with P kept and %g", losses[0], losses[1])
	}
	for which, keep := range grads[0] {
		per := len(keep) / len(p) // elements of a unit
		var most float64
		for _, g := range keep {
			most = max(most, math.Abs(float64(g)))
		}
		for i, g := range keep {
			want := g
			if which < 2 {
				want /= p[i/per]
			}
			if got := grads[1][which][i]; !(math.Abs(float64(got-want)) <= 1e-6*most) { // float32's rounding
				t.Fatalf("gradient %d of matrix %d is %g, want %g", i, which, got, want)
			}
		}
	}
}

func TestModesNeedNoGate(t *testing.T) {
	m, mlp := withP(t, Keep)
	mlp.Gate = mlp.Up
	if err := applyMode(m, Forward); err == nil || !strings.Contains(err.Error(), "expected keep") {
		t.Errorf("a gated MLP gave %v", err)
	}
}
