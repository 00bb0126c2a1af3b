package train

import (
	"context"
	"strings"
	"testing"

	"mlpfusion/kernel"
	"mlpfusion/model"
	"mlpfusion/task"
)

// TestMemory: what a run is said to take is, to the byte, what its pass of the most tokens
// takes of the tape and of what products need, and its gradients and moments; of
// encoders, decoders, both, experts, a teacher and adapters, with layers that run once or
// twice.
func TestMemory(t *testing.T) {
	for _, name := range []string{"bert", "bert-fused", "gpt2", "llama", "gemma3", "t5", "switch", "mixtral", "lora-bert", "lora-llama-3", "teacher-llama"} {
		for _, c := range []Config{{Optimizer: PaperOptimizer}, {Optimizer: PaperOptimizer, BF16: true}, {Optimizer: PaperOptimizer, Recompute: true}, {Optimizer: SGDOptimizer}} {
			if c.Recompute && (name == "t5" || name == "switch" || name == "mixtral") {
				continue
			}
			g, opt := openGolden(t, strings.TrimPrefix(name, "teacher-")), model.LoadOptions{}
			base, adapter := strings.CutPrefix(strings.TrimPrefix(name, "teacher-"), "lora-")
			if adapter {
				base, opt.Adapter = name[5:], openAdapter(t, testdata+"/"+name)
			}
			m := load(t, base, opt)
			r := &Runner{Config: c, Objective: Labels{}, Pool: kernel.NewPool(2)}
			r.Config.Epochs, r.Config.Batch = 2, 2
			b := batch(g, "a")
			r.Data.Train = &task.Encoded{IDs: b.IDs, Types: b.Types, Labels: b.Labels, Targets: b.Targets, DecoderIDs: b.DecoderIDs, Offsets: ints(b.Offsets), DecoderOffsets: ints(b.DecoderOffsets)}
			r.Data.Dev = r.Data.Train
			spec := map[bool]string{false: "sst2", true: "lm"}[m.Config.Head == model.LanguageModel]
			var err error
			if r.Data.Spec, err = task.Lookup(spec); err != nil {
				t.Fatal(err)
			}
			if strings.HasPrefix(name, "teacher-") {
				r.Objective = &Distillation{Model: load(t, base, opt), Weight: 0.5, Temperature: 2}
			}
			mem, err := r.Memory(m)
			if err != nil {
				t.Fatal(err)
			}
			s, err := NewStepperFor(r.Objective, r.Pool, m, c.Optimizer, r.Config.Precision(), 0)
			if err != nil {
				t.Fatal(err)
			}
			var pass task.Batch
			r.Data.Train.Fill(&pass, r.longestPass())
			s.Step(&pass, 0)
			room := int64(0)
			if len(m.Usage()) > 0 {
				room = mem.Step / 8 // how many tokens each expert will get is not known
			}
			if got := s.tape.Bytes() + r.Pool.Bytes() + r.Objective.held(); got < mem.Step || got > mem.Step+room || got == 0 {
				t.Errorf("%s, %+v: a step took %d bytes, said were %d", name, c, got, mem.Step)
			}
			var parameters int64
			for _, x := range s.Optimizer.states {
				parameters += 4 * int64(len(x.p.Grad())+len(x.m)+len(x.v))
			}
			if parameters != mem.Parameters || parameters == 0 {
				t.Errorf("%s, %+v: gradients and moments took %d bytes, said were %d", name, c, parameters, mem.Parameters)
			}
			e := NewEvaluator(r.Pool, r.Config.Precision())
			if _, err := r.Objective.score(context.Background(), e, m, &r.Data, nil); err != nil {
				t.Fatal(err)
			}
			if got := e.whole.tape.Bytes(); r.Data.Spec.LanguageModel() && got > mem.Evaluation+room {
				t.Errorf("%s, %+v: evaluation took %d bytes, said were %d", name, c, got, mem.Evaluation)
			}
			r.Pool.Close()
		}
	}
}

func ints(v []int32) (w []int) {
	for _, x := range v {
		w = append(w, int(x))
	}
	return w
}

// TestFit: of the passes that fit, the largest are chosen, layers run again only where
// nothing fits otherwise, and what is less than the least is told.
func TestFit(t *testing.T) {
	r := tinyRunner(t, t.TempDir(), 2)
	r.Objective = Labels{}
	at := func(batch int, recompute bool) int64 {
		r.Config.Batch, r.Config.Accumulate, r.Config.Recompute = batch, 8/batch, recompute
		m, err := r.Load()
		if err != nil {
			t.Fatal(err)
		}
		if err := r.prepare(m); err != nil {
			t.Fatal(err)
		}
		step, err := r.stepMemory(m)
		if err != nil {
			t.Fatal(err)
		}
		return step
	}
	if a, b := at(8, false), at(8, true); a <= b {
		t.Fatalf("layers that run once take %d bytes, twice %d", a, b)
	}
	const all = 1 << 40
	for _, c := range []struct {
		room      int64
		batch     int
		recompute bool
	}{{all, 8, false}, {at(8, false), 8, false}, {at(8, false) - 1, 4, false}, {at(1, false), 1, false}} {
		r.Config.Batch, r.Config.Accumulate, r.Config.Recompute = 8, 1, false
		m, err := r.Load()
		if err != nil {
			t.Fatal(err)
		}
		taken, fits, err := r.fit(m, c.room)
		if err != nil || !fits {
			t.Fatal(fits, err)
		}
		if r.Config.Batch != c.batch || r.Config.StepRows() != 8 || r.Config.Recompute != c.recompute || taken > c.room || taken != at(c.batch, c.recompute) {
			t.Errorf("for %d bytes: passes of %d, recompute %v, taking %d", c.room, c.batch, c.recompute, taken)
		}
	}
	r.Config.Batch, r.Config.Accumulate, r.Config.Recompute = 8, 1, false
	m, err := r.Load()
	if err != nil {
		t.Fatal(err)
	}
	least := at(1, true)
	r.Config.Batch, r.Config.Accumulate, r.Config.Recompute = 8, 1, false
	if taken, fits, err := r.fit(m, least-1); fits || err != nil || taken != least {
		t.Errorf("for a byte too few: %d bytes, which fit %v, %v; the least is %d", taken, fits, err, least)
	}
}
