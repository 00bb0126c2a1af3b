package train_test

import (
	"context"
	"errors"
	"math"
	"math/rand/v2"
	"path/filepath"
	"testing"

	"mlpfusion/checkpoint"
	"mlpfusion/convert"
	"mlpfusion/kernel"
	"mlpfusion/kmeans"
	"mlpfusion/model"
	"mlpfusion/nn"
	"mlpfusion/task"
	"mlpfusion/train"
)

// distinct is the number of different hidden units of the 64 in a block.
const distinct = 16

// kindOf says which unit the k-th is a copy of: clusters of many sizes.
func kindOf(k int) int {
	if k < distinct {
		return k
	}
	return k * k % 7
}

// duplicates writes a model whose hidden units are copies of a few, and the
// same model fused to those few.
func duplicates(t *testing.T) (original, fused string) {
	t.Helper()
	original, fused = filepath.Join(t.TempDir(), "original"), filepath.Join(t.TempDir(), "fused")
	src, err := checkpoint.OpenDir("../model/testdata/bert")
	if err != nil {
		t.Fatal(err)
	}
	defer src.Close()
	m, _, err := model.Load(src, model.LoadOptions{})
	if err != nil {
		t.Fatal(err)
	}
	for _, b := range m.Blocks {
		up, down := b.MLP.Up, b.MLP.Down
		for k := range b.Width {
			from := kindOf(k)
			copy(up.W.Data[k*b.Hidden:(k+1)*b.Hidden], up.W.Data[from*b.Hidden:])
			up.B.Data[k] = up.B.Data[from]
			for r := range b.Hidden {
				down.W.Data[r*b.Width+k] = down.W.Data[r*b.Width+from]
			}
		}
	}
	o, err := checkpoint.CreateOutput(original, false)
	if err != nil {
		t.Fatal(err)
	}
	defer o.Abort()
	if err := errors.Join(m.Save(o, src.Config), o.Commit()); err != nil {
		t.Fatal(err)
	}
	dir, err := checkpoint.OpenDir(original)
	if err != nil {
		t.Fatal(err)
	}
	defer dir.Close()
	opt := convert.FuseOptions{Plan: convert.Plan{Layers: "all", Width: distinct}, Method: "fusion"}
	opt.Fusion.Clustering = kmeans.Algorithm("ward")
	if _, err := convert.Fuse(context.Background(), dir, fused, opt); err != nil {
		t.Fatal(err)
	}
	return original, fused
}

func open(t *testing.T, path string) *model.Model {
	t.Helper()
	dir, err := checkpoint.OpenDir(path)
	if err != nil {
		t.Fatal(err)
	}
	defer dir.Close()
	m, _, err := model.Load(dir, model.LoadOptions{})
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// units calls f with each parameter of a block's hidden units.
func units(m *model.Model, b *model.Block, f func(p *nn.Param, down bool)) {
	for _, p := range m.Params {
		switch p.Weight {
		case b.MLP.Up.W, b.MLP.Up.B:
			f(p, false)
		case b.MLP.Down.W:
			f(p, true)
		}
	}
}

// fold multiplies P into the down projections. Its columns' steps are then P_k
// times one copy's if stepped, and all else as docs/method.md, "P in training", has it.
func fold(m *model.Model, stepped bool) {
	for _, b := range m.Blocks {
		sizes := b.MLP.ClusterSizes
		inverse := make([]float32, len(sizes))
		for k, n := range sizes {
			inverse[k] = 1 / n
		}
		units(m, b, func(p *nn.Param, down bool) {
			p.Unit = &nn.Unit{Columns: p.Unit.Columns, Norm: inverse}
			if !down {
				return
			}
			p.Unit.Norm = sizes
			if stepped {
				p.Unit.Step = sizes
			}
			for i := range p.Data {
				p.Data[i] *= sizes[i%p.Cols]
			}
		})
		b.MLP.ClusterSizes = nil
	}
}

// divideSteps gives unit k's parameters the learning rate divided by P_k.
func divideSteps(m *model.Model) {
	for _, b := range m.Blocks {
		inverse := make([]float32, len(b.MLP.ClusterSizes))
		for k, n := range b.MLP.ClusterSizes {
			inverse[k] = 1 / n
		}
		units(m, b, func(p *nn.Param, _ bool) {
			p.Unit = &nn.Unit{Columns: p.Unit.Columns, Norm: p.Unit.Norm, Step: inverse}
		})
	}
}

// TestSameTraining checks the exactness properties of docs/method.md: a model of
// copied hidden units and its fused form, trained side by side, follow the same
// function, with AdamW and P kept, with AdamW on the folded form with the step
// multiplier P_k, and with SGD at the learning rate divided by P_k; with
// gradient clipping, which 1/P_k in the norm makes agree, and without; with
// weight decay, which the multiplier leaves alone.
//
// Adam's eps is near 0, since a fused gradient is P_k times a copy's. The two
// sum in different orders, so losses, norms and logits agree to float32's
// rounding as eight steps carry it on: about 1e-5. With Adam an element whose
// gradient is as small as that rounding may go the other way in one of the two,
// which moves it by twice the learning rate, so much is allowed. Leaving a
// multiplier out is off by far more, which the last cases show.
func TestSameTraining(t *testing.T) {
	original, fused := duplicates(t)
	adam := train.OptimizerConfig{Beta1: 0.9, Beta2: 0.98, Eps: 1e-30, WeightDecay: 0.1}
	sgd := train.OptimizerConfig{SGD: true, WeightDecay: 0.1}
	for _, c := range []struct {
		name    string
		cfg     train.OptimizerConfig
		lr      float64
		prepare func(m *model.Model)
		differs bool
	}{
		{"AdamW, P kept", adam, 1e-3, func(*model.Model) {}, false},
		{"AdamW, folded with multiplier", adam, 1e-3, func(m *model.Model) { fold(m, true) }, false},
		{"SGD, learning rate over P", sgd, 1e-2, divideSteps, false},
		{"AdamW, folded without multiplier", adam, 1e-3, func(m *model.Model) { fold(m, false) }, true},
		{"SGD, one learning rate", sgd, 1e-2, func(*model.Model) {}, true},
	} {
		for _, clip := range []float64{0, 0.3} {
			t.Run(c.name+map[bool]string{false: "", true: ", clipped"}[clip > 0], func(t *testing.T) {
				c.cfg.ClipNorm = clip
				a, b := open(t, original), open(t, fused)
				c.prepare(b)
				worst := together(t, a, b, c.cfg, c.lr)
				t.Logf("farthest %.1e", worst)
				allowed := 1e-4
				if !c.cfg.SGD {
					allowed = 2 * c.lr
				}
				if !c.differs && !(worst <= allowed) {
					t.Errorf("original and fused drift apart by %g", worst)
				}
				if c.differs && !(worst >= 20*allowed) {
					t.Errorf("without the multiplier they drift apart by %g only: this test would not see it", worst)
				}
			})
		}
	}
}

// together trains two models for eight steps and returns the largest relative
// difference of their losses, gradient norms and final logits.
func together(t *testing.T, a, b *model.Model, cfg train.OptimizerConfig, lr float64) (worst float64) {
	pool := kernel.NewPool(2)
	defer pool.Close()
	rng := rand.New(rand.NewPCG(8, 8))
	data := &task.Encoded{Offsets: []int{0}}
	for row := range 32 {
		for range 4 + rng.IntN(6) {
			data.IDs, data.Types = append(data.IDs, int32(rng.IntN(96))), append(data.Types, int32(row%2))
		}
		data.Offsets, data.Labels = append(data.Offsets, len(data.IDs)), append(data.Labels, float32(row%2))
	}
	sa, sb := train.NewStepper(pool, a, cfg, kernel.FP32, 0), train.NewStepper(pool, b, cfg, kernel.FP32, 0)
	far := func(x, y float64) { worst = max(worst, math.Abs(x-y)/max(1, math.Abs(x))) }
	var batch task.Batch
	for step := range 8 {
		rows := task.Shuffle(1, step, data.Len())[:16]
		data.Fill(&batch, rows)
		far(sa.Step(&batch, lr), sb.Step(&batch, lr))
		far(sa.Optimizer.Norm(), sb.Optimizer.Norm())
	}
	sa.Optimizer.Flush()
	sb.Optimizer.Flush()
	e := train.NewEvaluator(pool, kernel.FP32)
	x, err := e.Logits(context.Background(), a, data, nil)
	if err != nil {
		t.Fatal(err)
	}
	y, err := e.Logits(context.Background(), b, data, nil)
	if err != nil {
		t.Fatal(err)
	}
	for i := range x {
		far(float64(x[i]), float64(y[i]))
	}
	return worst
}
