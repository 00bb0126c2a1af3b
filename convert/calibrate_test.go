package convert

import (
	"path/filepath"
	"slices"
	"testing"

	"mlpfusion/fusion"
	"mlpfusion/internal/golden"
	"mlpfusion/kernel"
	"mlpfusion/model"
	"mlpfusion/nn"
)

// TestPairs runs the original and the fused model straight through and compares
// what each block sees and is to give with what the calibrator, which goes layer
// by layer, says: a block that gave it would end the layer as the original does.
func TestPairs(t *testing.T) {
	for _, family := range []string{"bert", "gpt2", "t5", "t5-gated", "llama", "gemma2", "olmo2"} {
		t.Run(family, func(t *testing.T) {
			pool := newPool(t)
			dir := openDir(t, filepath.Join(testdata, family))
			in := *sample
			if family != "bert" {
				in.Types = nil
			}
			if family[:2] == "t5" {
				in.DecoderIDs, in.DecoderOffsets = []int32{0, 9, 8, 0, 7, 0}, []int32{0, 3, 5, 6}
			}
			cal, err := NewCalibrator(t.Context(), pool, dir, &Texts{Batches: []model.Input{in, *in.Slice(1, 3)}})
			if err != nil {
				t.Fatal(err)
			}
			defer cal.Close()
			var models [2]*model.Model
			for i := range models {
				if models[i], _, err = model.Load(dir, model.LoadOptions{NewHead: true}); err != nil {
					t.Fatal(err)
				}
			}
			for block, b := range models[0].Blocks {
				inputs, err := cal.Inputs(block)
				if err != nil {
					t.Fatal(err)
				}
				var x, stream, y [2][]float32
				for i, m := range models {
					tape := nn.NewTape(pool)
					m.ForwardAll(tape, &in, &model.Output{AllTokens: true, KeepHidden: true})
					mlp := m.Blocks[block].MLP
					x[i], y[i], stream[i] = mlp.X.Data, mlp.Y.Data, mlp.X.Data
					if mlp.Residual != nil {
						stream[i] = mlp.Residual.Data
					}
					if family == "gemma2" || family == "olmo2" { // a norm stands behind the MLP
						stream[i] = make([]float32, len(y[i]))
					}
				}
				made := slices.Clone(y[0])
				kernel.Axpy(1, stream[0], made)
				pairs, paired := inputs.(fusion.PairInputs)
				if paired != (block > 0) {
					t.Fatalf("%s: paired %v", b.Name, paired)
				}
				weights := inputs.(fusion.WeightedInputs).Weights()
				if family == "bert" {
					if weights != nil {
						t.Errorf("%s: found weights of tokens where no norm reads the stream", b.Name)
					}
				} else {
					squares := make([]float32, len(made)/b.Hidden)
					for r := range squares {
						squares[r] = float32(kernel.SumSquares(made[r*b.Hidden:(r+1)*b.Hidden])) / float32(b.Hidden) * weights[r]
					}
					golden.Near(t, b.Name+": weights times mean squares", squares, slices.Repeat([]float32{1}, len(squares)), 1e-5)
				}
				calls := 0
				check := func(got, want []float32, _ int) error {
					if calls++; calls > 1 {
						return nil // the second batch is part of the first
					}
					golden.Near(t, b.Name+": inputs", got, x[1], 1e-5)
					sum := slices.Clone(want)
					kernel.Axpy(1, stream[1], sum)
					golden.Near(t, b.Name+": the layer's sum with what it is to give", sum, made, 1e-5)
					return nil
				}
				if paired {
					err = pairs.EachPair(check)
				} else {
					err = inputs.Each(func(got []float32, n int) error { return check(got, y[0], n) })
				}
				if err != nil || calls != 2 {
					t.Fatalf("%d batches, %v", calls, err)
				}
				small := smaller(models[0].Blocks[block])
				Install(models[1].Blocks[block].MLP, small)
				if err := cal.Replace(block, func() (*fusion.Block, error) { return small, nil }); err != nil {
					t.Fatal(err)
				}
			}
		})
	}
}

// TestExpertInputs: the experts of a layer see each token that is routed to them, and are
// weighted by what their output counts; the mixture sees all tokens, with its choices.
func TestExpertInputs(t *testing.T) {
	for _, family := range []string{"switch", "mixtral", "qwen2-moe"} {
		t.Run(family, func(t *testing.T) { testExpertInputs(t, family) })
	}
}

func testExpertInputs(t *testing.T, family string) {
	pool := newPool(t)
	dir := openDir(t, filepath.Join(testdata, family))
	in := *sample
	in.Types = nil
	if family == "switch" {
		in.DecoderIDs, in.DecoderOffsets = []int32{0, 9, 8, 0, 7, 0}, []int32{0, 3, 5, 6}
	}
	cal, err := NewCalibrator(t.Context(), pool, dir, &Texts{Batches: []model.Input{in}})
	if err != nil {
		t.Fatal(err)
	}
	defer cal.Close()
	m, _, err := model.Load(dir, model.LoadOptions{NewHead: true})
	if err != nil {
		t.Fatal(err)
	}
	tape := nn.NewTape(pool)
	m.ForwardAll(tape, &in, &model.Output{AllTokens: true, KeepHidden: true})
	seen := 0
	for block, b := range m.Blocks {
		inputs, err := cal.Inputs(block)
		if err != nil {
			t.Fatal(err)
		}
		if !b.Mixed() {
			continue
		}
		var x []float32
		if err := inputs.Each(func(part []float32, _ int) error { x = append(x, part...); return nil }); err != nil {
			t.Fatal(err)
		}
		if want := b.MLP.X.Data; len(want) > 0 || len(x) > 0 { // not an expert that no token went to
			golden.Near(t, b.Name, x, want, 1e-5)
			seen++
		}
		if b.Experts == 0 {
			continue
		}
		mixed := m.Mixed(b.Mixture)
		stream := slices.Clone(mixed.Y.Data)
		kernel.Axpy(1, mixed.Residual.Data, stream)
		k := mixed.Routing.Router.TopK
		weights := []float32{}
		for j, e := range mixed.Routing.Expert {
			if mixed.Routing.Slot[j] >= 0 && int(e) == b.Expert {
				row := stream[j/k*b.Hidden : (j/k+1)*b.Hidden]
				weights = append(weights, mixed.Routing.Weight[j]*mixed.Routing.Weight[j]*float32(b.Hidden)/float32(kernel.SumSquares(row)))
			}
		}
		if len(weights) > 0 {
			golden.NearNorm(t, b.Name+": weights", inputs.(fusion.WeightedInputs).Weights(), weights, 1e-5)
		}
		if b.Expert > 0 {
			continue
		}
		routed, err := cal.Mixture(block)
		if err != nil {
			t.Fatal(err)
		}
		err = routed.EachRouted(func(x []float32, experts []int32, w []float32, tokens int) error {
			golden.Near(t, b.Router+": inputs", x, mixed.X.Data, 1e-5)
			golden.Near(t, b.Router+": weights", w, mixed.Routing.Weight, 1e-5)
			for j, e := range experts {
				if want := mixed.Routing.Expert[j]; e != want && (e != -1 || mixed.Routing.Slot[j] >= 0) {
					t.Errorf("%s: choice %d is expert %d, want %d", b.Router, j, e, want)
				}
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	if seen < 2 {
		t.Errorf("%d experts saw tokens, want several", seen)
	}
}

// smaller keeps the first half of a block's units.
func smaller(b *model.Block) *fusion.Block {
	c := b.Width / 2
	m := fusion.MLP{Hidden: b.Hidden, Width: c, Act: b.Act, Up: b.MLP.Up.W.Data[:c*b.Hidden], Down: make([]float32, b.Hidden*c)}
	for r := range b.Hidden {
		copy(m.Down[r*c:(r+1)*c], b.MLP.Down.W.Data[r*b.Width:])
	}
	if b.MLP.Gate != nil {
		m.Gate = b.MLP.Gate.W.Data[:c*b.Hidden]
	}
	if b.Bias {
		m.UpBias, m.DownBias = b.MLP.Up.B.Data[:c], b.MLP.Down.B.Data
	}
	return &fusion.Block{MLP: m}
}
