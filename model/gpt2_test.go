package model_test

import (
	"fmt"
	"math"
	"slices"
	"strconv"
	"testing"

	"mlpfusion/internal/golden"
	"mlpfusion/kernel"
	"mlpfusion/model"
	"mlpfusion/nn"
)

// languageModels are checkpoints with what PyTorch computed with them
// (scripts/goldens/gpt2.py, decoders.py and mixtures.py).
var languageModels = slices.Concat([]string{"gpt2", "gpt2-options", "gpt2-base", "gpt2-fused"}, decoders, mixtures)

func (g goldenFile) text(batch string) *model.Input {
	return &model.Input{IDs: g.Ints(batch + ".ids"), Offsets: g.Ints(batch + ".offsets"), Targets: g.Ints(batch + ".targets")}
}

// TestLanguageModelForward checks the hidden states and, for each prefix of each
// text, the logits of the next token.
func TestLanguageModelForward(t *testing.T) {
	for _, name := range languageModels {
		t.Run(name, func(t *testing.T) {
			g := openGolden(t, name)
			m := load(t, name, model.LoadOptions{})
			pool := kernel.NewPool(2)
			defer pool.Close()
			tape := nn.NewTape(pool)
			in := g.text("a")
			if err := m.Check(in); err != nil {
				t.Fatal(err)
			}
			tape.Reset(0)
			out := &model.Output{AllTokens: true, KeepHidden: true}
			m.ForwardAll(tape, in, out)
			if len(out.Hidden) != m.Config.Layers+1 {
				t.Fatalf("%d hidden states for %d layers", len(out.Hidden), m.Config.Layers)
			}
			for i, h := range out.Hidden {
				golden.Near(t, fmt.Sprintf("hidden state %d", i), h.Data, g.Floats("hidden."+strconv.Itoa(i)), 1e-4)
			}
			prefixes := &model.Input{Offsets: []int32{0}}
			for i, end := range in.Offsets[1:] {
				for to := in.Offsets[i] + 1; to <= end; to++ {
					prefixes.IDs = append(prefixes.IDs, in.IDs[in.Offsets[i]:to]...)
					prefixes.Offsets = append(prefixes.Offsets, int32(len(prefixes.IDs)))
				}
			}
			tape.Reset(0)
			golden.Near(t, "logits", m.Forward(tape, prefixes).Data, g.Floats("logits"), 1e-4)
			tape.Reset(0)
			loss, want := m.Loss(tape, nn.KernelFunction, in, nil), float64(g.Floats("likelihood")[0])
			if !(math.Abs(loss-want) <= 1e-5*math.Abs(want)) {
				t.Errorf("log-likelihood %g, want %g", loss, want)
			}
		})
	}
}

// TestLanguageModelGradients checks every parameter's gradient within the
// promised 1e-3 of its norm, and that two workers give the bytes of one.
func TestLanguageModelGradients(t *testing.T) {
	for _, name := range languageModels {
		t.Run(name, func(t *testing.T) {
			g := openGolden(t, name)
			var first [][]float32
			for _, workers := range []int{1, 2} {
				m := load(t, name, model.LoadOptions{})
				m.RouterLosses = slices.Contains(g.Names(), "balance_loss")
				pool := kernel.NewPool(workers)
				defer pool.Close()
				tape := nn.NewTape(pool)
				tape.Train = true
				// Twice, so that what a step leaves behind would be seen.
				for step := range 2 {
					tape.Reset(step)
					m.ZeroGrad()
					loss := m.Loss(tape, nn.CrossEntropy, g.text("a"), nil)
					want := float64(g.Floats("loss")[0])
					golden.NearValue(t, "loss", loss, want, 1e-5*max(1, want))
					tape.Backward()
				}
				for i, p := range m.Params {
					p.Weight.SettleGrad()
					if workers == 2 {
						if !slices.Equal(first[i], p.Grad()) {
							t.Errorf("%s: two workers' gradient differs from one's", p.Name)
						}
						continue
					}
					first = append(first, slices.Clone(p.Grad()))
					golden.NearNorm(t, p.Name+": gradient", stored(p, p.Grad()), g.Floats("grad."+p.Name), 1e-3)
				}
			}
		})
	}
}

// TestLastQueries checks the rows that the last layer leaves out: gradients with
// targets at random places are those of all tokens going through it, and a
// sequence without a target takes no part.
func TestLastQueries(t *testing.T) {
	g := openGolden(t, "gpt2")
	pool := kernel.NewPool(2)
	defer pool.Close()
	m := load(t, "gpt2", model.LoadOptions{})
	in := g.text("a")
	for i := range in.Targets {
		if i%3 != 1 || i < int(in.Offsets[1]) {
			in.Targets[i] = -1
		}
	}
	tape := nn.NewTape(pool)
	tape.Train = true
	tape.Reset(0)
	m.ZeroGrad()
	loss := m.Loss(tape, nn.KernelFunction, in, nil)
	tape.Backward()
	got := map[string][]float32{}
	for _, p := range m.Params {
		p.Weight.SettleGrad()
		got[p.Name] = slices.Clone(p.Grad())
	}
	rows, targets := []int32{}, []int32{}
	for i, id := range in.Targets {
		if id >= 0 {
			rows, targets = append(rows, int32(i)), append(targets, id)
		}
	}
	tape.Reset(0)
	m.ZeroGrad()
	out := &model.Output{AllTokens: true, KeepHidden: true}
	m.ForwardAll(tape, in, out)
	want := tape.VocabularyLoss(nn.KernelFunction, tape.Rows(out.Hidden[m.Config.Layers], rows), m.Weights[0], 1, 0, targets)
	tape.Backward()
	if !(math.Abs(loss-want) <= 1e-6*math.Abs(want)) {
		t.Errorf("log-likelihood %g, want %g", loss, want)
	}
	for _, p := range m.Params {
		p.Weight.SettleGrad()
		golden.NearNorm(t, p.Name+": gradient", got[p.Name], p.Grad(), 1e-5)
	}
}
