package fusion

import (
	"slices"

	"mlpfusion/kernel"
)

// Block is a compressed MLP in one of three forms:
//
//   - dense (Factors nil): an MLP of the fused width, with the fixed diagonal P
//     between activation and down projection when Scale is given:
//     y = Down·P·σ(Up·x + UpBias) + DownBias;
//   - factored (Factors given): each matrix is a product of two, and the MLP's
//     own Gate, Up and Down are nil. Width stays the original's;
//   - masked (Masked true): the original's shape, zeros where weights were cut;
//     they have to stay zero in training.
type Block struct {
	MLP
	Scale   []float32 // P, one factor a unit (cluster sizes); nil: none
	Step    []float32 // multipliers of each unit's training step; nil: none
	Factors *Factors
	Masked  bool

	Sizes        []int32 // cluster sizes, where the method clusters
	Assign       []int32 // the cluster of each of the original's units, where it does
	Inertia      float64 // sum of squared distances of sub-MLPs to their centroids
	InputInertia float64 // the same to their common mean: Inertia at width 1
	Silhouette   float64 // mean over sub-MLPs, −1 … 1; 0 where not clustered
}

// Factors are the two linear layers that replace each matrix: Up = UpU·UpV and
// so on, of rank Rank. U is out×Rank, V is Rank×in.
type Factors struct {
	Rank         int
	GateU, GateV []float32
	UpU, UpV     []float32
	DownU, DownV []float32
}

// Forward writes the block's output for x (tokens×Hidden) to out of the same
// shape. It is the reference for every other implementation of the block.
func (b *Block) Forward(pool *kernel.Pool, x []float32, tokens int, out []float32) {
	if b.Factors == nil {
		b.run(pool, x, tokens, out, b.Scale)
		return
	}
	f, p := b.Factors, b.Hidden
	h := make([]float32, min(tokens, chunk)*f.Rank)
	for t := 0; t < tokens; t += chunk {
		n := min(chunk, tokens-t)
		b.features(pool, x[t*p:], n, h)
		linear(pool, f.DownU, h, n, f.Rank, p, out[t*p:], kernel.Epilogue{Bias: b.DownBias})
	}
}

// inputs is the number of features that the last linear layer reads.
func (b *Block) inputs() int {
	if b.Factors != nil {
		return b.Factors.Rank
	}
	return b.Width
}

// features writes what the last linear layer reads, before P: tokens×inputs().
func (b *Block) features(pool *kernel.Pool, x []float32, tokens int, h []float32) {
	if b.Factors == nil {
		b.hidden(pool, x, tokens, h, nil)
		return
	}
	f := b.Factors
	low := make([]float32, tokens*f.Rank)
	two := func(u, v []float32, y []float32, ep kernel.Epilogue) {
		linear(pool, v, x, tokens, b.Hidden, f.Rank, low, kernel.Epilogue{})
		linear(pool, u, low, tokens, f.Rank, b.Width, y, ep)
	}
	a := make([]float32, tokens*b.Width)
	if f.GateU == nil {
		two(f.UpU, f.UpV, a, kernel.Epilogue{Bias: b.UpBias, Act: b.Act})
	} else {
		u := make([]float32, tokens*b.Width)
		two(f.UpU, f.UpV, u, kernel.Epilogue{Bias: b.UpBias})
		two(f.GateU, f.GateV, a, kernel.Epilogue{Bias: b.GateBias, Act: b.Act, Mul: u})
	}
	linear(pool, f.DownV, a, tokens, b.Width, f.Rank, h, kernel.Epilogue{})
}

// last returns the last linear layer with P folded in, Hidden×inputs(). It may
// be the block's own.
func (b *Block) last() []float32 {
	switch {
	case b.Factors != nil:
		return b.Factors.DownU
	case b.Scale == nil:
		return b.Down
	}
	w := slices.Clone(b.Down)
	for r := range b.Hidden {
		kernel.Mul(w[r*b.Width:(r+1)*b.Width], b.Scale)
	}
	return w
}

// clone returns a block that shares no weights with b.
func (b *Block) clone() *Block {
	c := *b
	c.MLP = b.MLP.clone()
	if b.Factors != nil {
		f := *b.Factors
		for _, w := range []*[]float32{&f.GateU, &f.GateV, &f.UpU, &f.UpV, &f.DownU, &f.DownV} {
			*w = slices.Clone(*w)
		}
		c.Factors = &f
	}
	return &c
}

// eachMatrix calls visit with every matrix of the block, in whatever form.
func (b *Block) eachMatrix(visit func(w []float32, rows, cols int)) {
	one := func(w []float32, rows, cols int) {
		if w != nil {
			visit(w, rows, cols)
		}
	}
	one(b.Gate, b.Width, b.Hidden)
	one(b.Up, b.Width, b.Hidden)
	one(b.Down, b.Hidden, b.Width)
	if f := b.Factors; f != nil {
		one(f.GateU, b.Width, f.Rank)
		one(f.GateV, f.Rank, b.Hidden)
		one(f.UpU, b.Width, f.Rank)
		one(f.UpV, f.Rank, b.Hidden)
		one(f.DownU, b.Hidden, f.Rank)
		one(f.DownV, f.Rank, b.Width)
	}
}

// Fold multiplies P into Down and drops it; the function stays the same. In
// training it is not the same: Adam's step on Down then lacks the factor P.
func (b *Block) Fold() {
	if b.Scale == nil {
		return
	}
	b.Down = b.last()
	b.Scale = nil
}

// Params returns the number of the block's trainable parameters; of a masked
// block, those that are not cut. P is fixed and not counted.
func (b *Block) Params() int {
	n := 0
	b.eachMatrix(func(w []float32, _, _ int) {
		if !b.Masked {
			n += len(w)
			return
		}
		for _, v := range w {
			if v != 0 {
				n++
			}
		}
	})
	return n + len(b.GateBias) + len(b.UpBias) + len(b.DownBias)
}

// FLOPs returns the floating-point operations of the block's matrix products
// for one token, a multiplication and an addition counted as two. A masked
// block is computed dense and saves none.
func (b *Block) FLOPs() int {
	n := 0
	b.eachMatrix(func(_ []float32, rows, cols int) { n += 2 * rows * cols })
	return n
}
