package train

import (
	"context"
	"errors"
	"math"
	"slices"
	"strings"
	"testing"

	"mlpfusion/internal/golden"
	"mlpfusion/kernel"
	"mlpfusion/model"
	"mlpfusion/nn"
	"mlpfusion/task"
)

// tinyTuner is a tuning run like tinyRunner's.
func tinyTuner(t testing.TB, dir string, workers int) *Runner {
	r := tinyRunner(t, dir, workers)
	r.Objective = &Tuning{Teacher: load(t, "bert", model.LoadOptions{})}
	r.Config.Optimizer, r.Config.Schedule = TuneOptimizer, Constant
	r.Config.LR = []float64{1e-3}
	return r
}

// TestTuneGradient compares the gradient of every fused parameter with central
// differences along it. The loss is a sum of float64 squares of float32 states,
// so a step that changes it by about 1e-3 of itself leaves a few 1e-4 of
// rounding and curvature, relative to the slope. All forms of a block: P, factors.
func TestTuneGradient(t *testing.T) {
	for _, name := range []string{"bert-fused", "bert-svd", "gpt2-fused"} {
		pool := kernel.NewPool(2)
		defer pool.Close()
		student := load(t, name, model.LoadOptions{})
		teacher := load(t, name, model.LoadOptions{})
		for _, p := range teacher.Params {
			for i := range p.Data {
				p.Data[i] *= 1.1
			}
		}
		s, err := NewStepperFor(&Tuning{Teacher: teacher}, pool, student, TuneOptimizer, kernel.FP32, 0)
		if err != nil {
			t.Fatal(err)
		}
		var b task.Batch
		words(9, 4).Fill(&b, []int32{0, 1, 2, 3, 4, 5, 6, 7, 8})
		s.in = InputOf(&b)
		loss := func(backward bool) float64 {
			s.tape.Reset(0)
			student.ZeroGrad()
			v := s.objective.loss(s.tape, student, &s.in, nil)
			if backward {
				s.tape.Backward()
			}
			return v
		}
		at := loss(true)
		grads := map[*nn.Param][]float32{}
		for _, p := range student.Params {
			if !p.Weight.Frozen {
				p.Weight.SettleGrad()
				grads[p] = slices.Clone(p.Grad())
			}
		}
		for p, g := range grads {
			square := kernel.SumSquares(g)
			if square == 0 {
				t.Fatalf("%s %s: no gradient", name, p.Name)
			}
			old := slices.Clone(p.Data)
			eps := 1e-3 * at / square
			move := func(by float64) float64 {
				for i := range old {
					p.Data[i] = old[i] + float32(by)*g[i]
				}
				return loss(false)
			}
			slope := (move(eps) - move(-eps)) / (2 * eps)
			copy(p.Data, old)
			if !(math.Abs(slope-square) <= 2e-3*square) {
				t.Errorf("%s %s: slope %g along the gradient, its square is %g", name, p.Name, slope, square)
			}
		}
		if want := map[string]int{"bert-fused": 8, "bert-svd": 6, "gpt2-fused": 8}[name]; len(grads) != want {
			t.Errorf("%s: %d parameters are tuned, want those of two blocks, %d", name, len(grads), want)
		}
	}
}

// TestTuneWeighs: where norms come first, a token's difference is divided by the mean square
// of the original's state there; elsewhere all tokens count alike.
func TestTuneWeighs(t *testing.T) {
	for _, c := range []struct {
		student, teacher string
		weighs           bool
	}{{"bert-fused", "bert", false}, {"gpt2-fused", "gpt2", true}, {"t5-fused", "t5-gated", true}} {
		pool := kernel.NewPool(2)
		defer pool.Close()
		student := load(t, c.student, model.LoadOptions{})
		o := &Tuning{Teacher: load(t, c.teacher, model.LoadOptions{})}
		if err := o.begin(pool, kernel.FP32, student); err != nil {
			t.Fatal(err)
		}
		var b task.Batch
		words(9, 4).Fill(&b, []int32{0, 1, 2, 3, 4, 5, 6, 7, 8})
		in := InputOf(&b)
		if student.Config.DecoderLayers > 0 {
			in.DecoderIDs, in.DecoderOffsets = in.IDs, in.Offsets
		}
		got := o.loss(o.ours, student, &in, nil)
		var want float64
		layers := len(o.hidden.Hidden) - 1
		for l := 1; l <= layers; l++ {
			theirs, ours := o.original.Hidden[l], o.hidden.Hidden[l]
			for r := range theirs.Rows {
				var distance, square float64
				for k := r * theirs.Cols; k < (r+1)*theirs.Cols; k++ {
					d := float64(ours.Data[k] - theirs.Data[k])
					distance += d * d
					square += float64(theirs.Data[k]) * float64(theirs.Data[k]) / float64(theirs.Cols)
				}
				if c.weighs {
					distance /= square
				}
				want += distance / float64(theirs.Rows*layers)
			}
		}
		golden.NearValue(t, c.student+": loss", got, want, 1e-5*want)
	}
}

// TestTune checks that tuning brings the student closer to its teacher, moves
// the fused MLPs' parameters and nothing else, and leaves the teacher alone.
func TestTune(t *testing.T) {
	r := tinyTuner(t, t.TempDir(), 2)
	first := load(t, "bert-fused", model.LoadOptions{})
	o := r.Objective.(*Tuning)
	if err := o.begin(r.Pool, kernel.FP32, first); err != nil {
		t.Fatal(err)
	}
	before, err := o.score(context.Background(), nil, first, &r.Data, nil)
	if err != nil {
		t.Fatal(err)
	}
	m, result, err := r.Run(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	if after := result.Metrics[0]; after.Name != task.Distance || !(after.Value < 0.95*before[0].Value) {
		t.Errorf("the distance went from %v to %v", before, result.Metrics)
	}
	for i, p := range m.Params {
		mlp := strings.Contains(p.Name, "intermediate") || strings.Contains(p.Name, "output.dense") && !strings.Contains(p.Name, "attention")
		tuned := mlp && !strings.Contains(p.Name, "layer.0.")
		if moved := !slices.Equal(p.Data, first.Params[i].Data); moved != tuned {
			t.Errorf("%s: moved %t, want %t", p.Name, moved, tuned)
		}
	}
	for i, p := range load(t, "bert", model.LoadOptions{}).Params {
		if !slices.Equal(p.Data, o.Teacher.Params[i].Data) {
			t.Errorf("%s of the teacher moved", p.Name)
		}
	}
}

// TestTuneResumes stops tuning at steps and in evaluations: the same bytes.
func TestTuneResumes(t *testing.T) {
	want := run(t, tinyTuner(t, t.TempDir(), 2))
	for _, at := range []struct {
		event string
		n     int
	}{{"step", 5}, {"eval", 1}, {"step", 12}} {
		r := tinyTuner(t, t.TempDir(), 1)
		ctx, cancel := context.WithCancel(context.Background())
		stopAt(r, at.event, at.n, cancel)
		if _, _, err := r.Run(ctx); !errors.Is(err, context.Canceled) {
			t.Fatalf("stopped at %v: %v", at, err)
		}
		again := tinyTuner(t, r.Dir, 2)
		again.Resume = true
		same(t, "stopped at "+at.event, run(t, again), want)
	}
}

// TestTuneAllocates nothing in a steady step.
func TestTuneAllocates(t *testing.T) {
	pool := kernel.NewPool(2)
	defer pool.Close()
	s, err := NewStepperFor(&Tuning{Teacher: load(t, "bert", model.LoadOptions{})}, pool, load(t, "bert-fused", model.LoadOptions{}), TuneOptimizer, kernel.FP32, 0)
	if err != nil {
		t.Fatal(err)
	}
	data := words(32, 1)
	var b task.Batch
	order := task.Shuffle(0, 0, data.Len())
	step := func() {
		data.Fill(&b, order)
		s.Step(&b, 1e-5)
	}
	for range 3 {
		step()
	}
	if n := testing.AllocsPerRun(20, step); n != 0 {
		t.Errorf("a tuning step allocates %g times", n)
	}
}

// TestTuneRefuses models that do not belong together.
func TestTuneRefuses(t *testing.T) {
	pool := kernel.NewPool(1)
	defer pool.Close()
	for _, c := range []struct{ student, teacher, want string }{
		{"bert", "bert", "found no fused block"},
		{"bert-fused", "distilbert", "expected the model that was fused"},
		{"t5-fused", "t5", "3 of the decoder"},
	} {
		_, err := NewStepperFor(&Tuning{Teacher: load(t, c.teacher, model.LoadOptions{})}, pool, load(t, c.student, model.LoadOptions{}), TuneOptimizer, kernel.FP32, 0)
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s with teacher %s gave %v", c.student, c.teacher, err)
		}
	}
}

// TestMasked checks that weights cut by the method magnitude stay zero, and the
// others do train.
func TestMasked(t *testing.T) {
	pool := kernel.NewPool(2)
	defer pool.Close()
	m := load(t, "bert", model.LoadOptions{})
	up := m.Blocks[1].MLP.Up.W
	up.Masked = true
	for i := range up.Data {
		if i%3 != 0 {
			up.Data[i] = 0
		}
	}
	first := slices.Clone(up.Data)
	s := NewStepper(pool, m, PaperOptimizer, kernel.FP32, 0)
	var b task.Batch
	data := words(16, 1)
	for step := range 4 {
		data.Fill(&b, task.Shuffle(0, step, data.Len()))
		s.Step(&b, 1e-3)
	}
	for i, v := range up.Data {
		if kept := i%3 == 0; kept == (v == first[i]) {
			t.Fatalf("element %d went from %v to %v", i, first[i], v)
		}
	}
}
