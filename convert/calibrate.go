package convert

import (
	"context"
	"fmt"

	"mlpfusion/checkpoint"
	"mlpfusion/fusion"
	"mlpfusion/kernel"
	"mlpfusion/model"
	"mlpfusion/nn"
)

// Texts are unlabelled texts of a task, ready for a model.
type Texts struct {
	Name    string            // for the record
	Head    model.LoadOptions // of the task
	Batches []model.Input
}

// Calibrate prepares what the method reads of texts, and for usage what the routers of
// the model in dir do with them. done, to be called after Fuse, frees it.
func (o *FuseOptions) Calibrate(ctx context.Context, pool *kernel.Pool, dir *checkpoint.Dir, t *Texts, usage bool) (done func(), err error) {
	method, err := fusion.Lookup(o.Method)
	if err != nil {
		return nil, err
	}
	o.CalibrationName, done = t.Name, func() {}
	if usage {
		head := t.Head
		head.NewHead = true // what routers do does not depend on it
		m, _, err := model.Load(dir, head)
		if err != nil {
			return nil, err
		}
		if len(m.Usage()) == 0 {
			return nil, fmt.Errorf("%s: expected a model with mixtures of experts, found none", dir.Path)
		}
		if o.Usage, err = Routers(ctx, pool, m, nil, t.Batches, nil); err != nil {
			return nil, err
		}
	}
	if method.UsesTexts(o.Fusion) {
		cal, err := NewCalibrator(ctx, pool, dir, t.Head, t.Batches, nil)
		if err != nil {
			return nil, err
		}
		o.Calibration, done = cal, cal.Close
	}
	return done, nil
}

// Calibrator runs example texts through the original model and through the one
// whose blocks are being compressed, a layer at a time, and gives each block the
// inputs it sees in both. States wait in temporary files, so memory does not
// grow with the number of texts.
type Calibrator struct {
	ctx      context.Context
	pool     *kernel.Pool
	tape     *nn.Tape
	batches  []model.Input
	original side
	fused    side // as far as compressed; it runs from the first Replace on
	replaced bool
	held     []spool // inputs of a layer's other experts
	progress func(done, total int)
}

// side is one model's run.
type side struct {
	m             *model.Model
	layer         int    // whose states wait
	before, after states // that layer; after it only where they are known
	inputs        spool  // of the MLP last asked for
	// stream is what that MLP's output is added to, empty where that is its inputs;
	// of the original, with the output.
	stream spool
	// weights are the tokens' of the original, see fusion.WeightedInputs.
	weights []float32
}

// NewCalibrator loads the model twice, with the task's head: its inputs may depend
// on it, those of an encoder–decoder do. The batches are packed texts; progress,
// which may be nil, is told the batches done for each block.
func NewCalibrator(ctx context.Context, pool *kernel.Pool, dir *checkpoint.Dir, head model.LoadOptions, batches []model.Input, progress func(done, total int)) (*Calibrator, error) {
	c := &Calibrator{ctx: ctx, pool: pool, tape: nn.NewTape(pool), batches: batches, progress: progress}
	head.NewHead = true // what comes before it is all that matters
	for _, s := range []*side{&c.original, &c.fused} {
		m, _, err := model.Load(dir, head)
		if err != nil {
			return nil, err
		}
		s.m, s.layer = m, -1
	}
	for _, b := range batches {
		if err := c.original.m.Check(&b); err != nil {
			return nil, err
		}
	}
	return c, nil
}

// Close removes the temporary files.
func (c *Calibrator) Close() {
	c.original.close()
	c.fused.close()
	c.release()
}

// release closes what is held.
func (c *Calibrator) release() {
	for i := range c.held {
		c.held[i].close()
	}
	c.held = nil
}

func (s *side) close() {
	for _, f := range []*spool{&s.before.x, &s.before.encoded, &s.after.x, &s.after.encoded, &s.inputs, &s.stream} {
		f.close()
	}
}

// Inputs implements Calibration. The blocks must be asked for in order of depth.
// Before the first Replace, and for experts, whose tokens each model chooses for
// itself, these are the inputs of one model; otherwise fusion.PairInputs. They
// last until a deeper block's are asked for.
func (c *Calibrator) Inputs(block int) (fusion.Inputs, error) {
	s := &c.original
	if c.replaced {
		s = &c.fused
	}
	if err := c.run(s, block); err != nil {
		return nil, err
	}
	in := sideInputs{c: c, inputs: s.inputs}
	if !c.replaced {
		in.weights = s.weights
	}
	if !c.replaced || s.m.Blocks[block].Experts > 0 {
		return in, nil
	}
	err := c.run(&c.original, block)
	in.weights = c.original.weights
	return pairedInputs{in}, err
}

// Rewind implements Calibration.
func (c *Calibrator) Rewind() {
	c.Close()
	c.original = side{m: c.original.m, layer: -1}
}

// Replace implements Calibration: later blocks see the compressed one's output.
func (c *Calibrator) Replace(block int, b *fusion.Block) error {
	if !c.replaced { // until now the models were one
		var err error
		if c.fused.before, err = c.original.before.copy(); err != nil {
			return err
		}
		c.fused.layer, c.replaced = c.original.layer, true
	}
	Install(c.fused.m.Blocks[block].MLP, b)
	return nil
}

// run moves a side's states before the block's layer and collects the inputs of
// its MLP.
func (c *Calibrator) run(s *side, block int) (err error) {
	b := s.m.Blocks[block]
	if b.Depth < s.layer {
		return fmt.Errorf("calibration: expected blocks in order of depth, found layer %d after %d", b.Depth, s.layer)
	}
	from, layer := s.before, s.layer
	if after := s.after; after.x.file != nil && layer < b.Depth {
		from, layer = after, layer+1
	}
	next := side{m: s.m, layer: b.Depth}
	defer func() {
		if err != nil {
			next.close()
		}
	}()
	if s == &c.fused { // what this MLP itself gives is not asked for
		mlp := *b.MLP
		Install(b.MLP, stub(b))
		defer func() { *b.MLP = mlp }()
	}
	for i := range c.batches {
		if err := c.ctx.Err(); err != nil {
			return err
		}
		in := &c.batches[i]
		c.tape.Reset(0)
		var x model.State
		at := max(layer, 0)
		if layer < 0 {
			x = s.m.Embed(c.tape, in)
		} else if x, err = from.read(c.tape, i, s.m.Config.Hidden); err != nil {
			return err
		}
		for ; at < b.Depth; at++ {
			x = s.m.Layer(c.tape, at, x, in)
		}
		if err := next.before.write(x); err != nil {
			return err
		}
		x = s.m.Layer(c.tape, at, x, in)
		if err := next.inputs.write(b.MLP.X); err != nil {
			return err
		}
		stream := b.MLP.Residual
		if s == &c.original {
			if stream == nil {
				stream = b.MLP.X
			}
			if b.MLP.Normed {
				stream = b.MLP.Y
			} else {
				stream = c.tape.Add(b.MLP.Y, stream, 0)
			}
			if b.MLP.Residual != nil || b.MLP.Normed {
				next.weights = appendWeights(next.weights, stream)
			}
			if err := next.after.write(x); err != nil {
				return err
			}
		}
		if stream != nil {
			if err := next.stream.write(stream); err != nil {
				return err
			}
		}
		if c.progress != nil {
			c.progress(i+1, len(c.batches))
		}
	}
	if next.layer > s.layer {
		c.release()
	} else { // another expert's
		c.held = append(c.held, s.inputs)
		s.inputs = spool{}
	}
	s.close()
	*s = next
	return nil
}

// appendWeights adds those of the rows of a stream, or of an MLP's outputs, that a norm
// is to read: one through the mean square of its values, by which the norm divides the
// square of an error.
func appendWeights(weights []float32, stream *nn.Tensor) []float32 {
	for r := range stream.Rows {
		square := kernel.SumSquares(stream.Data[r*stream.Cols : (r+1)*stream.Cols])
		weights = append(weights, float32(float64(stream.Cols)/max(square, 1e-12)))
	}
	return weights
}

// stub returns the smallest MLP that can stand in a block's place.
func stub(b *model.Block) *fusion.Block {
	unit := make([]float32, b.Hidden)
	m := fusion.MLP{Hidden: b.Hidden, Width: 1, Act: b.Act, Up: unit, Down: unit}
	if b.Gated() {
		m.Gate = unit
	}
	return &fusion.Block{MLP: m}
}

// Install gives a loaded model's MLP the weights of a compressed block, for
// forward passes and gradients; the model's parameter list keeps the old ones.
func Install(m *model.MLP, b *fusion.Block) {
	matrix := func(data []float32, cols int) *nn.Weight {
		return &nn.Weight{Data: data, Rows: len(data) / cols, Cols: cols}
	}
	layer := func(w, bias []float32, cols int) *nn.Linear {
		l := &nn.Linear{W: matrix(w, cols)}
		if bias != nil {
			l.B = matrix(bias, len(bias))
		}
		return l
	}
	m.ClusterSizes, m.StepSizes, m.GateV, m.UpV, m.DownV = b.Scale, b.Step, nil, nil, nil
	if f := b.Factors; f != nil {
		if m.Gate != nil {
			m.GateV, m.Gate = layer(f.GateV, nil, b.Hidden), layer(f.GateU, b.GateBias, f.Rank)
		}
		m.UpV, m.Up = layer(f.UpV, nil, b.Hidden), layer(f.UpU, b.UpBias, f.Rank)
		m.DownV, m.Down = layer(f.DownV, nil, b.Width), layer(f.DownU, b.DownBias, f.Rank)
		return
	}
	if m.Gate != nil {
		m.Gate = layer(b.Gate, b.GateBias, b.Hidden)
	}
	m.Up, m.Down = layer(b.Up, b.UpBias, b.Hidden), layer(b.Down, b.DownBias, b.Width)
}

// sideInputs streams a block's inputs in one model.
type sideInputs struct {
	c       *Calibrator
	inputs  spool
	weights []float32
}

// Weights implements fusion.WeightedInputs.
func (in sideInputs) Weights() []float32 { return in.weights }

// Each implements fusion.Inputs.
func (in sideInputs) Each(f func(x []float32, tokens int) error) error {
	hidden := in.c.original.m.Config.Hidden
	var x []float32
	for i := range in.c.batches {
		if err := in.c.ctx.Err(); err != nil {
			return err
		}
		var err error
		if x, err = in.inputs.read(i, x); err != nil {
			return err
		}
		if err := f(x, len(x)/hidden); err != nil {
			return err
		}
	}
	return nil
}

// pairedInputs streams what run has collected of both models.
type pairedInputs struct{ sideInputs }

// EachPair implements fusion.PairInputs: what the block is to give is what the
// original's stream is after its MLP, less the fused model's before it; or, where a
// norm stands between, what the original's gives.
func (in pairedInputs) EachPair(f func(x, want []float32, tokens int) error) error {
	i, normed := 0, in.c.original.m.Blocks[0].MLP.Normed
	var want, stream []float32
	return in.Each(func(x []float32, tokens int) (err error) {
		if want, err = in.c.original.stream.read(i, want); err != nil {
			return err
		}
		before := x
		if s := &in.c.fused.stream; s.file != nil && !normed {
			if stream, err = s.read(i, stream); err != nil {
				return err
			}
			before = stream
		}
		if !normed {
			kernel.Axpy(-1, before, want)
		}
		i++
		return f(x, want, tokens)
	})
}
