package model_test

import (
	"fmt"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"testing"

	"mlpfusion/checkpoint"
	"mlpfusion/internal/golden"
	"mlpfusion/kernel"
	"mlpfusion/model"
	"mlpfusion/nn"
)

// textToText are encoder–decoders with a language model's head and what PyTorch
// computed with them (scripts/goldens/t5.py).
var textToText = []string{"t5", "t5-gated", "t5-untied", "t5-fused", "switch"}

func (g goldenFile) pairs(batch string) *model.Input {
	in := g.text(batch)
	in.DecoderIDs, in.DecoderOffsets = g.Ints(batch+".decoder_ids"), g.Ints(batch+".decoder_offsets")
	return in
}

// TestTextToTextForward checks the hidden states of encoder and decoder and, for
// each prefix of each text to be said, the logits of the next token.
func TestTextToTextForward(t *testing.T) {
	for _, name := range textToText {
		t.Run(name, func(t *testing.T) {
			g := openGolden(t, name)
			m := load(t, name, model.LoadOptions{})
			pool := kernel.NewPool(2)
			defer pool.Close()
			tape := nn.NewTape(pool)
			in := g.pairs("a")
			if err := m.Check(in); err != nil {
				t.Fatal(err)
			}
			tape.Reset(0)
			out := &model.Output{AllTokens: true, KeepHidden: true}
			m.ForwardAll(tape, in, out)
			if len(out.Hidden) != m.Depth()+1 {
				t.Fatalf("%d hidden states for %d layers", len(out.Hidden), m.Depth())
			}
			for i, h := range out.Hidden {
				golden.Near(t, fmt.Sprintf("hidden state %d", i), h.Data, g.Floats("hidden."+strconv.Itoa(i)), 1e-4)
			}
			prefixes := &model.Input{Offsets: []int32{0}, DecoderOffsets: []int32{0}}
			for i, end := range in.DecoderOffsets[1:] {
				for to := in.DecoderOffsets[i] + 1; to <= end; to++ {
					prefixes.IDs = append(prefixes.IDs, in.IDs[in.Offsets[i]:in.Offsets[i+1]]...)
					prefixes.Offsets = append(prefixes.Offsets, int32(len(prefixes.IDs)))
					prefixes.DecoderIDs = append(prefixes.DecoderIDs, in.DecoderIDs[in.DecoderOffsets[i]:to]...)
					prefixes.DecoderOffsets = append(prefixes.DecoderOffsets, int32(len(prefixes.DecoderIDs)))
				}
			}
			tape.Reset(0)
			golden.Near(t, "logits", m.Forward(tape, prefixes).Data, g.Floats("logits"), 1e-4)
		})
	}
}

// TestTextToTextGradients checks the loss, the routers' among it, and every
// parameter's gradient, and that two workers give the bytes of one.
func TestTextToTextGradients(t *testing.T) {
	for _, name := range textToText {
		t.Run(name, func(t *testing.T) {
			g := openGolden(t, name)
			var first [][]float32
			for _, workers := range []int{1, 2} {
				m := load(t, name, model.LoadOptions{})
				m.RouterLosses = name == "switch"
				pool := kernel.NewPool(workers)
				defer pool.Close()
				tape := nn.NewTape(pool)
				tape.Train = true
				for step := range 2 { // twice, so that what a step leaves behind would be seen
					tape.Reset(step)
					m.ZeroGrad()
					loss := m.Loss(tape, nn.CrossEntropy, g.pairs("a"), nil)
					want := float64(g.Floats("loss")[0])
					golden.NearValue(t, "loss", loss, want, 1e-5*max(1, want))
					tape.Backward()
				}
				if m.RouterLosses {
					z, balance := g.Floats("z_losses"), g.Floats("balance_losses")
					for i := range z {
						if !(math.Abs(m.RouterZLoss[i]-float64(z[i])) <= 1e-5) || !(math.Abs(m.BalanceLoss[i]-float64(balance[i])) <= 1e-5) {
							t.Errorf("routers' losses %g and %g, want %g and %g", m.RouterZLoss[i], m.BalanceLoss[i], z[i], balance[i])
						}
					}
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
					golden.NearNorm(t, p.Name+": gradient", p.Grad(), g.grad(p), 1e-3)
				}
			}
		})
	}
}

// TestRouting checks each token's expert and which tokens are dropped, the
// counts, and that an expert's rows are told by example.
func TestRouting(t *testing.T) {
	for _, name := range []string{"switch", "switch-label", "switch-fused"} {
		t.Run(name, func(t *testing.T) {
			g := openGolden(t, name)
			m := load(t, name, model.LoadOptions{})
			pool := kernel.NewPool(2)
			defer pool.Close()
			tape := nn.NewTape(pool)
			in := &model.Input{IDs: g.Ints("a.ids"), Offsets: g.Ints("a.offsets")}
			if name == "switch" {
				in = g.pairs("a")
			}
			tape.Reset(0)
			tape.Train = true // keeps the states of all layers
			m.Forward(tape, in)
			routings, usage, blocks := m.Routings(), m.Usage(), m.Blocks
			dropped := 0
			for i, r := range routings {
				want := g.Ints("expert." + strconv.Itoa(i))
				seen := make([]int64, r.Experts)
				for token, e := range want {
					got := r.Expert[token]
					if r.Slot[token] < 0 {
						got = -1
						dropped++
					} else {
						seen[got]++
					}
					if got != e {
						t.Errorf("mixture %d: token %d goes to expert %d, want %d", i, token, got, e)
					}
				}
				if !slices.Equal(seen, usage[i].Tokens) || int64(r.Dropped) != usage[i].Dropped {
					t.Errorf("%s: counted %v, dropped %d; want %v and %d", usage[i].Name, usage[i].Tokens, usage[i].Dropped, seen, r.Dropped)
				}
				for blocks[0].Experts == 0 {
					blocks = blocks[1:]
				}
				for e, b := range blocks[:r.Experts] {
					if b.Expert != e || b.Experts != r.Experts || int64(b.MLP.X.Rows) != seen[e] {
						t.Errorf("%s: expert %d of %d saw %d tokens, want %d of %d and %d", b.Name, b.Expert, b.Experts, b.MLP.X.Rows, e, r.Experts, seen[e])
					}
					if n := len(b.MLP.Offsets); n != len(in.Offsets) || b.MLP.Offsets[0] != 0 || int(b.MLP.Offsets[n-1]) != b.MLP.X.Rows {
						t.Errorf("%s: its rows begin at %v", b.Name, b.MLP.Offsets)
					}
				}
				blocks = blocks[r.Experts:]
			}
			if dropped == 0 {
				t.Error("the golden drops no token")
			}
		})
	}
}

// TestPublishedShapes loads checkpoints of published shapes that transformers
// saved, and compares the routers' choices, the hidden states, the loss and the
// logits with what PyTorch computed (scripts/peers/t5.py, scripts/test-peers.sh).
func TestPublishedShapes(t *testing.T) {
	folder := os.Getenv("MLPFUSION_PEER_T5")
	if folder == "" {
		t.Skip("MLPFUSION_PEER_T5 is not set: no checkpoint of a published shape is compared")
	}
	dir, err := checkpoint.OpenDir(folder)
	if err != nil {
		t.Fatal(err)
	}
	defer dir.Close()
	m, _, err := model.Load(dir, model.LoadOptions{})
	if err != nil {
		t.Fatal(err)
	}
	g := goldenFile{golden.Open(t, filepath.Join(folder, "golden.safetensors"))}
	in := g.pairs("a")
	if err := m.Check(in); err != nil {
		t.Fatal(err)
	}
	pool := kernel.NewPool(2)
	defer pool.Close()
	tape := nn.NewTape(pool)
	out := &model.Output{AllTokens: true, KeepHidden: true}
	m.ForwardAll(tape, in, out)
	for i, routing := range m.Routings() {
		for token, want := range g.Ints("expert." + strconv.Itoa(i)) {
			got := routing.Expert[token]
			if routing.Slot[token] < 0 {
				got = -1
			}
			if got != want {
				t.Errorf("mixture %d: token %d goes to expert %d, want %d", i, token, got, want)
			}
		}
	}
	var worst float64
	for i, h := range out.Hidden {
		want := g.Floats("hidden." + strconv.Itoa(i))
		golden.NearNorm(t, fmt.Sprintf("hidden state %d", i), h.Data, want, 1e-4)
		worst = max(worst, golden.Relative(h.Data, want))
	}
	t.Logf("hidden states of %d layers: farthest %.1e of the norm", m.Depth(), worst)
	tape.Reset(0)
	loss, want := m.Loss(tape, nn.CrossEntropy, in, nil), float64(g.Floats("loss")[0])
	if !(math.Abs(loss-want) <= 1e-4*want) {
		t.Errorf("loss %g, want %g", loss, want)
	}
}
