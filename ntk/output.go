package ntk

import (
	"context"
	"fmt"
	"math"

	"mlpfusion/kernel"
	"mlpfusion/model"
	"mlpfusion/nn"
)

// OutputError says how far a compressed model's outputs lie from the original's.
type OutputError struct {
	// Hidden is, by layer, the mean over tokens of the 2-norm of the hidden
	// states' difference; HiddenNorm that of the original's states themselves.
	Hidden     []float64 `json:"hidden"`
	HiddenNorm []float64 `json:"hidden_norm"`
	// Logits is the mean over examples of the 2-norm of the logits' difference;
	// LogitsNorm that of the original's logits.
	Logits     float64 `json:"logits"`
	LogitsNorm float64 `json:"logits_norm"`
}

// CompareOutputs runs both models on the sequences of in. Errors: models or
// inputs that do not fit each other, and the end of ctx.
func CompareOutputs(ctx context.Context, pool *kernel.Pool, original, fused *model.Model, in *model.Input) (*OutputError, error) {
	if err := comparable(original, fused); err != nil {
		return nil, err
	}
	if err := check(original, in, nil); err != nil {
		return nil, err
	}
	layers, n := original.Depth(), len(in.Offsets)-1
	e := &OutputError{Hidden: make([]float64, layers), HiddenNorm: make([]float64, layers)}
	rows := make([]int, layers) // of an encoder–decoder's layers, their own tokens
	tapes := [2]*nn.Tape{nn.NewTape(pool), nn.NewTape(pool)}
	for from, to := 0, 0; from < n; from = to {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		to = passEnd(in, from)
		part := in.Slice(from, to)
		var outs [2]model.Output
		for i, m := range [2]*model.Model{original, fused} {
			outs[i] = model.Output{AllTokens: true, KeepHidden: true}
			tapes[i].Reset(0)
			m.ForwardAll(tapes[i], part, &outs[i])
		}
		for l := range layers { // Hidden[0] is the embeddings, which are not compressed
			rows[l] += outs[0].Hidden[l+1].Rows
			addNorms(&e.Hidden[l], &e.HiddenNorm[l], outs[0].Hidden[l+1], outs[1].Hidden[l+1])
		}
		addNorms(&e.Logits, &e.LogitsNorm, outs[0].Logits, outs[1].Logits)
	}
	for l := range layers {
		e.Hidden[l] /= float64(rows[l])
		e.HiddenNorm[l] /= float64(rows[l])
	}
	e.Logits /= float64(n)
	e.LogitsNorm /= float64(n)
	return e, nil
}

// addNorms adds the norms of the rows of a−b and a.
func addNorms(diff, norm *float64, a, b *nn.Tensor) {
	for r := range a.Rows {
		var d, s float64
		for j, v := range a.Data[r*a.Cols : (r+1)*a.Cols] {
			x := float64(v)
			y := x - float64(b.Data[r*a.Cols+j])
			d += y * y
			s += x * x
		}
		*diff += math.Sqrt(d)
		*norm += math.Sqrt(s)
	}
}

// comparable tells whether two models differ in their MLPs' form at most.
func comparable(a, b *model.Model) error {
	x, y := a.Config, b.Config
	switch {
	case x.Type != y.Type:
		return fmt.Errorf("ntk: model_type: expected two models of one family, found %s and %s", x.Type, y.Type)
	case x.Hidden != y.Hidden || x.Layers != y.Layers || x.Vocab != y.Vocab || x.Positions != y.Positions || x.Types != y.Types:
		return fmt.Errorf("ntk: expected two models of one shape, found hidden size %d and %d, layers %d and %d, vocabulary %d and %d",
			x.Hidden, y.Hidden, x.Layers, y.Layers, x.Vocab, y.Vocab)
	case len(x.Labels) != len(y.Labels):
		return fmt.Errorf("ntk: expected two models of as many labels, found %d and %d", len(x.Labels), len(y.Labels))
	}
	return nil
}
