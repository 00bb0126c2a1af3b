package ntk_test

import (
	"context"
	"fmt"
	"maps"
	"math"
	"slices"
	"strings"
	"testing"

	"gonum.org/v1/gonum/mat"

	"mlpfusion/kernel"
	"mlpfusion/model"
	"mlpfusion/nn"
	"mlpfusion/ntk"
)

// narrowed returns m with the MLPs of some layers replaced by ones of the given
// width with P, whose weights set fills.
func narrowed(t testing.TB, m *model.Model, width int, blocks []int, set func(from, to *model.MLP)) *model.Model {
	t.Helper()
	cfg := *m.Config
	cfg.Blocks = map[string]model.BlockConfig{}
	for _, b := range blocks {
		cfg.Blocks[m.Blocks[b].Name] = model.BlockConfig{Width: width, ClusterSizes: true, StepSizes: true}
	}
	small, err := model.New(&cfg)
	if err != nil {
		t.Fatal(err)
	}
	values := map[string][]float32{}
	for _, p := range m.Params {
		values[p.Name] = p.Data
	}
	for _, p := range small.Params {
		if v := values[p.Name]; len(v) == len(p.Data) {
			copy(p.Data, v)
		}
	}
	for _, b := range blocks {
		set(m.Blocks[b].MLP, small.Blocks[b].MLP)
		for k := range width {
			small.Blocks[b].MLP.StepSizes[k] = 1
		}
	}
	return small
}

// repeated makes the MLPs of bert consist of 16 distinct units, repeated
// from 1 to 14 times, and returns it with the model that keeps one of each.
func repeated(t testing.TB) (original, fused *model.Model) {
	original = tiny(t, "bert")
	const width = 16
	member := func(i int) int { return min(width-1, i*i/200) } // sizes from 1 to 14
	blocks := []int{0, 2}
	for _, b := range blocks {
		up, down := original.Blocks[b].MLP.Up, original.Blocks[b].MLP.Down
		p := up.W.Cols
		for i := up.W.Rows - 1; i >= 0; i-- {
			k := i
			for k > 0 && member(k-1) == member(i) {
				k--
			}
			copy(up.W.Data[i*p:(i+1)*p], up.W.Data[k*p:(k+1)*p])
			up.B.Data[i] = up.B.Data[k]
			for r := range p {
				down.W.Data[r*up.W.Rows+i] = down.W.Data[r*up.W.Rows+k]
			}
		}
	}
	return original, narrowed(t, original, width, blocks, func(from, to *model.MLP) {
		p, wide := from.Up.W.Cols, from.Up.W.Rows
		for i := range wide {
			k := member(i)
			to.ClusterSizes[k]++
			copy(to.Up.W.Data[k*p:(k+1)*p], from.Up.W.Data[i*p:(i+1)*p])
			to.Up.B.Data[k] = from.Up.B.Data[i]
			for r := range p {
				to.Down.W.Data[r*width+k] = from.Down.W.Data[r*wide+i]
			}
		}
	})
}

// TestExact is the paper's claim (docs/method.md, "What is exact"): where the units are
// repeated ones, fusion with P kept has the original's outputs and kernels, to
// float32's rounding through three layers, and in Adam's kernels to the rounding
// of gradients to 2⁻¹⁶ of the largest (digits.go).
func TestExact(t *testing.T) {
	ctx, pool := context.Background(), kernel.NewPool(2)
	defer pool.Close()
	original, fused := repeated(t)
	in := openGolden(t, "bert").input()
	for _, kind := range []ntk.Kind{ntk.Adam, ntk.SGD} {
		var kernels [2][]*ntk.Kernel
		for i, m := range []*model.Model{original, fused} {
			k, err := ntk.Compute(ctx, pool, m, in, ntk.Options{Kind: kind, Blocks: ntk.All(m)})
			if err != nil {
				t.Fatal(err)
			}
			kernels[i] = append(k, ntk.Sum(k))
		}
		for i, k := range kernels[0] {
			d, err := ntk.Compare(k, kernels[1][i])
			if err != nil || !(d.Relative <= 5e-5) || !(d.Alignment >= 1-1e-6) || !(math.Abs(d.Absolute/d.Norm-d.Relative) <= 1e-15) {
				t.Errorf("%v, %s: %+v, error %v", kind, k.Block, d, err)
			}
		}
	}
	e, err := ntk.CompareOutputs(ctx, pool, original, fused, in)
	if err != nil {
		t.Fatal(err)
	}
	for l, d := range e.Hidden {
		if !(d <= 1e-5*e.HiddenNorm[l]) {
			t.Errorf("layer %d: hidden states differ by %g of %g", l, d, e.HiddenNorm[l])
		}
	}
	if !(e.Logits <= 1e-5*e.LogitsNorm) {
		t.Errorf("logits differ by %g of %g", e.Logits, e.LogitsNorm)
	}
	fits, err := ntk.FitSteps(ctx, pool, original, fused, in, ntk.FitOptions{})
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range fits {
		for k, a := range f.Steps {
			if !(math.Abs(float64(a)-1) <= 1e-2) || !(f.After <= 1e-4) {
				t.Errorf("%s: unit %d's step is fitted to %g, the kernel to %g, where 1 is exact", f.Block, k, a, f.After)
			}
		}
	}
}

// TestFitSteps: fitted multipliers bring each fused block's own kernel, as
// Compute gives it with them, as close as the fit says; no multiplier is under
// the bound.
func TestFitSteps(t *testing.T) {
	ctx, pool := context.Background(), kernel.NewPool(2)
	defer pool.Close()
	original := tiny(t, "bert")
	blocks := []int{0, 1, 2}
	fused := narrowed(t, original, 16, blocks, func(from, to *model.MLP) { // every fourth unit, four times
		p, wide := from.Up.W.Cols, from.Up.W.Rows
		for k := range 16 {
			to.ClusterSizes[k] = 4
			copy(to.Up.W.Data[k*p:(k+1)*p], from.Up.W.Data[4*k*p:])
			to.Up.B.Data[k] = from.Up.B.Data[4*k]
			for r := range p {
				to.Down.W.Data[r*16+k] = from.Down.W.Data[r*wide+4*k]
			}
		}
	})
	in := openGolden(t, "bert").input()
	for _, lower := range []float64{0, 0.25} {
		fits, err := ntk.FitSteps(ctx, pool, original, fused, in, ntk.FitOptions{Lower: lower, Ridge: 1e-6})
		if err != nil {
			t.Fatal(err)
		}
		for i, f := range fits {
			mlp := fused.Blocks[i].MLP
			ones := slices.Clone(mlp.StepSizes)
			copy(mlp.StepSizes, f.Steps)
			if f.Block != fused.Blocks[i].Name || !(float64(slices.Min(f.Steps)) >= lower) || !(f.After <= f.Before) {
				t.Errorf("%s: steps from %g, error from %g to %g", f.Block, slices.Min(f.Steps), f.Before, f.After)
			}
			opt := ntk.Options{Blocks: []int{i}}
			want, err := ntk.Compute(ctx, pool, original, in, opt)
			if err != nil {
				t.Fatal(err)
			}
			got, err := ntk.Compute(ctx, pool, fused, in, opt)
			if err != nil {
				t.Fatal(err)
			}
			if d, _ := ntk.Compare(want[0], got[0]); !(math.Abs(d.Relative-f.After) <= 1e-5) {
				t.Errorf("%s: the fit says %g, the kernel with its steps is off by %g", f.Block, f.After, d.Relative)
			}
			copy(mlp.StepSizes, ones)
		}
	}
}

// TestPositive: SGD's kernel is symmetric to the bit, and positive semidefinite
// to float32's rounding.
func TestPositive(t *testing.T) {
	pool := kernel.NewPool(2)
	defer pool.Close()
	for _, name := range goldens {
		m := tiny(t, name)
		kernels, err := ntk.Compute(context.Background(), pool, m, openGolden(t, name).input(), ntk.Options{Kind: ntk.SGD, Blocks: ntk.All(m)})
		if err != nil {
			t.Fatal(err)
		}
		for _, k := range kernels {
			s := mat.NewSymDense(k.N, nil)
			for i := range k.N {
				for j := range k.N {
					if k.Data[i*k.N+j] != k.Data[j*k.N+i] {
						t.Fatalf("%s: K[%d,%d] and K[%d,%d] differ", k.Block, i, j, j, i)
					}
					s.SetSym(i, j, float64(k.Data[i*k.N+j]))
				}
			}
			var eigen mat.EigenSym
			eigen.Factorize(s, false)
			values := eigen.Values(nil)
			if low, high := values[0], values[len(values)-1]; !(low >= -1e-6*high) {
				t.Errorf("%s, %s: eigenvalues from %g to %g", name, k.Block, low, high)
			}
		}
	}
}

// TestWorkers: the same bytes for any number of workers, and the model as it was.
func TestWorkers(t *testing.T) {
	ctx := context.Background()
	original, m := tiny(t, "bert"), tiny(t, "bert-fused")
	m.Weights[3].Frozen = true
	cfg := *m.Config
	var first []string
	for _, workers := range []int{1, 2, 5} {
		pool := kernel.NewPool(workers)
		defer pool.Close()
		var all []string
		in := openGolden(t, "bert").input()
		for _, kind := range []ntk.Kind{ntk.Adam, ntk.SGD} {
			kernels, err := ntk.Compute(ctx, pool, m, in, ntk.Options{Kind: kind, Blocks: []int{2, 0}})
			if err != nil {
				t.Fatal(err)
			}
			for _, k := range kernels {
				all = append(all, fmt.Sprintf("%v %v %x", kind, k.Block, k.Data))
			}
		}
		fits, err := ntk.FitSteps(ctx, pool, original, m, in, ntk.FitOptions{})
		if err != nil {
			t.Fatal(err)
		}
		e, err := ntk.CompareOutputs(ctx, pool, original, m, in)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, fmt.Sprintf("%x %x", fits, *e))
		if first == nil {
			first = all
		} else if !slices.Equal(all, first) {
			t.Errorf("%d workers give other bytes than 1", workers)
		}
	}
	now := *m.Config
	if fmt.Sprint(now) != fmt.Sprint(cfg) || !maps.Equal(now.Blocks, cfg.Blocks) {
		t.Error("the config has changed")
	}
	for i, w := range m.Weights {
		if w.Frozen != (i == 3) {
			t.Error("a weight's Frozen has changed")
		}
	}
}

// TestOutputs checks the output error against PyTorch's.
func TestOutputs(t *testing.T) {
	pool := kernel.NewPool(2)
	defer pool.Close()
	g := openGolden(t, "bert-fused")
	e, err := ntk.CompareOutputs(context.Background(), pool, tiny(t, "bert"), tiny(t, "bert-fused"), g.input())
	if err != nil {
		t.Fatal(err)
	}
	for l, want := range g.Floats("output.hidden") {
		if !(math.Abs(e.Hidden[l]-float64(want)) <= 1e-5*float64(want)) {
			t.Errorf("layer %d: hidden states differ by %g, want %g", l, e.Hidden[l], want)
		}
	}
	if want := float64(g.Floats("output.logits")[0]); !(math.Abs(e.Logits-want) <= 1e-5*want) {
		t.Errorf("logits differ by %g, want %g", e.Logits, want)
	}
}

// TestCompare by hand: K = 2·K_orig has relative error 1 and is aligned; centring
// takes constants off.
func TestCompare(t *testing.T) {
	a := &ntk.Kernel{N: 2, Data: []float32{1, 2, 3, 6}}
	d, err := ntk.Compare(a, &ntk.Kernel{N: 2, Data: []float32{2, 4, 6, 12}})
	want := ntk.Difference{Norm: math.Sqrt(50), Absolute: math.Sqrt(50), Relative: 1, Alignment: 1}
	if err != nil || !(math.Abs(d.Alignment-1) <= 1e-12) || !(math.Abs(d.Absolute-want.Absolute) <= 1e-12) || d.Relative != 1 || d.Norm != want.Norm {
		t.Errorf("%+v, want %+v, error %v", d, want, err)
	}
	if d, _ = ntk.Compare(a, &ntk.Kernel{N: 2, Data: []float32{8, 9, 10, 13}}); !(math.Abs(d.Alignment-1) <= 1e-12) {
		t.Errorf("alignment %g with a constant added, want 1", d.Alignment)
	}
	if _, err = ntk.Compare(a, &ntk.Kernel{N: 1, Data: []float32{1}}); err == nil {
		t.Error("kernels of two sizes were compared")
	}
}

func TestErrors(t *testing.T) {
	pool := kernel.NewPool(1)
	defer pool.Close()
	ctx, cancel := context.WithCancel(context.Background())
	bert, fused, svd := tiny(t, "bert"), tiny(t, "bert-fused"), tiny(t, "bert-svd")
	in := openGolden(t, "bert").input()
	wrong := *in
	wrong.IDs = slices.Clone(in.IDs)
	wrong.IDs[3] = 1 << 20
	expect := func(err error, part string) {
		t.Helper()
		if err == nil || !strings.Contains(err.Error(), part) {
			t.Errorf("error %v, want one with %q", err, part)
		}
	}
	compute := func(in *model.Input, blocks ...int) error {
		_, err := ntk.Compute(ctx, pool, bert, in, ntk.Options{Blocks: blocks})
		return err
	}
	fit := func(a, b *model.Model, opt ntk.FitOptions) error {
		_, err := ntk.FitSteps(ctx, pool, a, b, in, opt)
		return err
	}
	expect(compute(in, 3), "one of the model's 3 blocks")
	expect(compute(&wrong), "id below the vocabulary's")
	expect(compute(&model.Input{Offsets: []int32{0}}), "at least one example")
	expect(fit(bert, bert, ntk.FitOptions{}), "no fused block")
	expect(fit(svd, svd, ntk.FitOptions{}), "kept as factors")
	expect(fit(bert, svd, ntk.FitOptions{}), "layers 3 and 2")
	expect(fit(bert, tiny(t, "roberta"), ntk.FitOptions{}), "one family")
	expect(fit(bert, fused, ntk.FitOptions{Lower: -1}), "at least 0")
	_, err := ntk.CompareOutputs(ctx, pool, bert, svd, in)
	expect(err, "one shape")
	_, err = ntk.ParseKind("sgdm")
	expect(err, "adam or sgd")
	cancel()
	expect(compute(in), "canceled")
	expect(fit(bert, fused, ntk.FitOptions{}), "canceled")
	_, err = ntk.CompareOutputs(ctx, pool, bert, fused, in)
	expect(err, "canceled")
}

// TestDiagonal: K_ii of SGD's kernel is the squared norm of the gradient that
// training computes for example i, in every family.
func TestDiagonal(t *testing.T) {
	pool := kernel.NewPool(2)
	defer pool.Close()
	for _, name := range []string{"bert", "roberta", "distilbert", "bert-svd", "gpt2-options", "llama"} {
		m := tiny(t, name)
		in := openGolden(t, "bert").input()
		for i := range in.IDs {
			in.IDs[i] %= int32(m.Config.Vocab)
		}
		if m.Config.Head == model.LanguageModel { // each token is to be predicted before itself
			in.Targets = in.IDs
		}
		kernels, err := ntk.Compute(context.Background(), pool, m, in, ntk.Options{Kind: ntk.SGD, Blocks: ntk.All(m)})
		if err != nil {
			t.Fatal(err)
		}
		cfg := m.Config
		cfg.Dropout = model.Dropout{}
		tape := nn.NewTape(pool)
		tape.Train = true
		for i := range len(in.Offsets) - 1 {
			tape.Reset(i)
			m.ZeroGrad()
			m.Loss(tape, nn.KernelFunction, in.Slice(i, i+1), nil)
			tape.Backward()
			for l, k := range kernels {
				var want float64
				for _, linear := range m.Blocks[l].MLP.Linears() {
					want += kernel.SumSquares(linear.W.Grad)
					if linear.B != nil {
						want += kernel.SumSquares(linear.B.Grad)
					}
				}
				if got := float64(k.Data[i*k.N+i]); !(math.Abs(got-want) <= 1e-5*want) {
					t.Errorf("%s, %s: K of example %d is %g, its gradient's squared norm %g", name, k.Block, i, got, want)
				}
			}
		}
	}
}
