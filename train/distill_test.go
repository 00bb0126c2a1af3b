package train

import (
	"bytes"
	"context"
	"errors"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"mlpfusion/kernel"
	"mlpfusion/model"
	"mlpfusion/task"
)

// distilling is the tiny runner with a teacher.
func distilling(t testing.TB, dir string, weight float64) *Runner {
	r := tinyRunner(t, dir, 2)
	r.Objective = &Distillation{Model: load(t, "bert", model.LoadOptions{}), Teacher: "bert", Weight: weight, Temperature: 2}
	return r
}

// TestDistilling: a run that is stopped in the middle and goes on gives the bytes
// of one that was not; with no weight the teacher changes nothing.
func TestDistilling(t *testing.T) {
	want := run(t, distilling(t, t.TempDir(), 0.5))
	plain := run(t, tinyRunner(t, t.TempDir(), 2))
	if bytes.Equal(want, plain) {
		t.Error("a teacher changed nothing")
	}
	same(t, "a teacher without weight", run(t, distilling(t, t.TempDir(), 0)), plain)

	r := distilling(t, t.TempDir(), 0.5)
	ctx, cancel := context.WithCancel(context.Background())
	stopAt(r, "step", 11, cancel)
	if _, _, err := r.Run(ctx); !errors.Is(err, context.Canceled) {
		t.Fatalf("stopped: %v", err)
	}
	again := distilling(t, r.Dir, 0.4)
	again.Resume = true
	if _, _, err := again.Run(context.Background()); err == nil || !strings.Contains(err.Error(), "expected the settings of the run") {
		t.Errorf("another weight on going on gave %v", err)
	}
	again = distilling(t, r.Dir, 0.5)
	again.Resume = true
	same(t, "stopped at step 11", run(t, again), want)
}

// TestOwnTeacher: a model that learns its own logits and nothing else stays as it
// is, and a step allocates nothing and leaves the teacher alone.
func TestOwnTeacher(t *testing.T) {
	pool := kernel.NewPool(2)
	defer pool.Close()
	student, teacher := load(t, "bert", model.LoadOptions{}), load(t, "bert", model.LoadOptions{})
	student.Config.Dropout = model.Dropout{}
	cfg := OptimizerConfig{SGD: true}
	s, err := NewStepperFor(&Distillation{Model: teacher, Weight: 1, Temperature: 3}, pool, student, cfg, kernel.FP32, 0)
	if err != nil {
		t.Fatal(err)
	}
	data := words(16, 1)
	var b task.Batch
	data.Fill(&b, task.Shuffle(0, 0, data.Len()))
	step := func() {
		if loss := s.Step(&b, 1e-2); !(loss <= 1e-12) {
			t.Fatalf("the loss is %g", loss)
		}
	}
	step()
	s.Optimizer.Flush()
	for i, p := range student.Params {
		if !slices.Equal(p.Data, teacher.Params[i].Data) {
			t.Errorf("%s changed", p.Name)
		}
	}
	step()
	step()
	if n := testing.AllocsPerRun(10, step); n != 0 {
		t.Errorf("a step allocates %g times", n)
	}
}

func TestDistillerRefuses(t *testing.T) {
	pool := kernel.NewPool(1)
	defer pool.Close()
	good := Distillation{Weight: 0.5, Temperature: 2}
	for _, c := range []struct {
		student, teacher string
		d                Distillation
		want             string
	}{
		{"bert-fused", "bert", Distillation{Weight: 2, Temperature: 2}, "weight from 0 to 1, found 2"},
		{"bert-fused", "bert", Distillation{Weight: 0.5}, "temperature above 0, found 0"},
		{"bert-fused", "bert-regression", good, "student's labels"},
		{"gpt2", "bert", good, "student's labels"},
	} {
		c.d.Model = load(t, c.teacher, model.LoadOptions{})
		_, err := NewStepperFor(&c.d, pool, load(t, c.student, model.LoadOptions{}), PaperOptimizer, kernel.FP32, 0)
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s with teacher %s gave %v, want %q", c.student, c.teacher, err, c.want)
		}
	}
	for _, c := range []struct {
		change func(*model.Config)
		want   string
	}{
		{func(c *model.Config) { c.Vocab++ }, "student's vocabulary of 96, found 97"},
		{func(c *model.Config) { c.Positions = 8 }, "found 8"},
	} {
		teacher := load(t, "bert", model.LoadOptions{})
		c.change(teacher.Config)
		d := good
		d.Model = teacher
		if _, err := NewStepperFor(&d, pool, load(t, "bert", model.LoadOptions{}), PaperOptimizer, kernel.FP32, 0); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("gave %v, want %q", err, c.want)
		}
	}
}

// TestTextTeacher: a language model that learns its own predictions and nothing else
// has no loss and nothing to learn, and one whose weights were shaken comes back towards
// its teacher. A step allocates nothing.
func TestTextTeacher(t *testing.T) {
	pool := kernel.NewPool(2)
	defer pool.Close()
	data := textRunner(t, t.TempDir(), 2).Data.Train
	var b task.Batch
	data.Fill(&b, task.Shuffle(0, 0, min(data.Len(), 6)))
	for _, name := range []string{"gpt2", "llama"} {
		student, teacher := load(t, name, model.LoadOptions{}), load(t, name, model.LoadOptions{})
		student.Config.Dropout = model.Dropout{}
		s, err := NewStepperFor(&Distillation{Model: teacher, Weight: 1, Temperature: 3}, pool, student, OptimizerConfig{SGD: true}, kernel.FP32, 0)
		if err != nil {
			t.Fatal(err)
		}
		// Sums of products of some 5 rounded to float32, times the squared temperature.
		if loss := s.Step(&b, 0); !(math.Abs(loss) <= 1e-5) {
			t.Errorf("%s: the loss of its own predictions is %g", name, loss)
		}
		if norm := s.Optimizer.Norm(); !(norm <= 1e-5) {
			t.Errorf("%s: the gradient's norm is %g", name, norm)
		}
		rng := rand.New(rand.NewPCG(1, 1))
		for _, p := range student.Params {
			for i := range p.Data {
				p.Data[i] += 0.05 * float32(rng.NormFloat64())
			}
		}
		first := s.Step(&b, 0.02)
		last := first
		for range 20 {
			last = s.Step(&b, 0.02)
		}
		if !(first > 1e-3 && last < 0.8*first) {
			t.Errorf("%s: the loss went from %g to %g", name, first, last)
		}
		if n := testing.AllocsPerRun(5, func() { s.Step(&b, 1e-3) }); n != 0 {
			t.Errorf("%s: a step allocates %g times", name, n)
		}
	}
}

// TestTeachBlocks: of a fused model the blocks' weights alone come nearer to the original's
// predictions, without dropout; a model without fused blocks is refused.
func TestTeachBlocks(t *testing.T) {
	pool := kernel.NewPool(2)
	defer pool.Close()
	data := textRunner(t, t.TempDir(), 2).Data.Train
	var b task.Batch
	data.Fill(&b, task.Shuffle(0, 0, min(data.Len(), 6)))
	student, first, teacher := load(t, "gpt2-fused", model.LoadOptions{}), load(t, "gpt2-fused", model.LoadOptions{}), load(t, "gpt2", model.LoadOptions{})
	d := &Distillation{Model: teacher, Weight: 1, Temperature: 1, Blocks: true}
	s, err := NewStepperFor(d, pool, student, TuneOptimizer, kernel.FP32, 0)
	if err != nil {
		t.Fatal(err)
	}
	before := s.Step(&b, 1e-2)
	if again := s.Step(&b, 0); !(before > 0 && again < before) {
		t.Errorf("the loss went from %g to %g", before, again)
	}
	if once, twice := s.Step(&b, 0), s.Step(&b, 0); once != twice {
		t.Errorf("losses of the same weights differ, %g and %g: is there dropout?", once, twice)
	}
	s.Optimizer.Flush()
	moved := 0
	for i, p := range student.Params {
		block := strings.Contains(p.Name, ".mlp.") && !strings.Contains(p.Name, "h.0.")
		if changed := !slices.Equal(p.Data, first.Params[i].Data); changed != block {
			t.Errorf("%s: moved %t, want %t", p.Name, changed, block)
		} else if changed {
			moved++
		}
	}
	if moved != 8 {
		t.Errorf("%d tensors moved, want those of two blocks, 8", moved)
	}
	if _, err := NewStepperFor(d, pool, load(t, "gpt2", model.LoadOptions{}), TuneOptimizer, kernel.FP32, 0); err == nil || !strings.Contains(err.Error(), "found no fused block") {
		t.Errorf("a model that is not fused gave %v", err)
	}
}
