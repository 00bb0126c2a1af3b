package convert

import (
	"cmp"
	"context"
	"fmt"
	"slices"

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
		src, err := t.Open(dir)
		if err != nil {
			return nil, err
		}
		if len(mixtures(src.Blocks)) == 0 {
			return nil, fmt.Errorf("%s: expected a model with mixtures of experts, found none", dir.Path)
		}
		if o.Usage, err = Routers(ctx, pool, src, nil, t.Batches, nil); err != nil {
			return nil, err
		}
	}
	if method.UsesTexts(o.Fusion) {
		cal, err := NewCalibrator(ctx, pool, dir, t)
		if err != nil {
			return nil, err
		}
		o.Calibration, done = cal, cal.Close
	}
	return done, nil
}

// Open opens a model for the texts: with the task's head, for the inputs of an
// encoder–decoder's blocks depend on it. What comes before the head is all that matters.
func (t *Texts) Open(dir *checkpoint.Dir) (*model.Source, error) {
	head := t.Head
	head.NewHead = true
	return model.OpenAs(dir, head)
}

// Calibrator runs example texts through the original model and through the one
// whose blocks are being compressed, a layer at a time, and gives each block the
// inputs it sees in both. One layer's weights are in memory, states wait in temporary
// files: it grows neither with the model nor with the number of texts.
type Calibrator struct {
	ctx      context.Context
	pool     *kernel.Pool
	tape     *nn.Tape
	src      *model.Source
	batches  []model.Input
	part     *model.Model // of src, what layer at reads
	at       int
	original side
	fused    side // as far as compressed; it runs from the first Replace on
	replaced map[int]func() (*fusion.Block, error)
	tokens   int64
	progress func(done, total int)
}

// side is one model's run.
type side struct {
	layer         int    // whose states wait, −1 before the first
	before, after states // that layer; after it only where they are known
	// collected tells that the following are there.
	collected bool
	inputs    spool   // of the layer's MLP, or of its mixture
	routes    []route // of the batches, by the mixture's router
	// stream is what a dense MLP's output is added to, empty where that is its inputs;
	// of the original, with the output.
	stream spool
	// weights are the tokens' of the original, see fusion.WeightedInputs.
	weights []float32
}

// route is what a router did with a batch.
type route struct {
	experts []int32   // (tokens × k): those of each token, −1 in place of one that has no place for it
	weights []float32 // (tokens × k): what multiplies their outputs
	// stream are the tokens' weights by the stream behind the mixture, see model.AppendStreamWeights;
	// nil where no norm reads it.
	stream []float32
}

// NewCalibrator opens the model for texts, which are packed.
func NewCalibrator(ctx context.Context, pool *kernel.Pool, dir *checkpoint.Dir, texts *Texts) (*Calibrator, error) {
	src, err := texts.Open(dir)
	if err != nil {
		return nil, err
	}
	c := &Calibrator{ctx: ctx, pool: pool, tape: nn.NewTape(pool), src: src, batches: texts.Batches,
		original: side{layer: -1}, fused: side{layer: -1}, replaced: map[int]func() (*fusion.Block, error){}}
	if err := c.load(-1, false); err != nil {
		return nil, err
	}
	for i := range c.batches {
		if err := c.part.Check(&c.batches[i]); err != nil {
			return nil, err
		}
	}
	return c, nil
}

// Close removes the temporary files.
func (c *Calibrator) Close() {
	c.original.close()
	c.fused.close()
	c.part, c.tape = nil, nn.NewTape(c.pool)
}

func (s *side) close() {
	s.before.close()
	s.after.close()
	s.forget()
}

// forget frees what was collected.
func (s *side) forget() {
	s.inputs.close()
	s.stream.close()
	s.collected, s.weights, s.routes = false, nil, nil
}

// Watch implements Calibration.
func (c *Calibrator) Watch(progress func(done, total int)) { c.progress = progress }

// Tokens implements Calibration.
func (c *Calibrator) Tokens() int64 { return c.tokens }

// Inputs implements Calibration. The blocks must be asked for in order of depth, and
// the inputs last until a deeper block's are asked for. Before the first Replace, and for
// those of mixtures always, they are the original model's; otherwise
// fusion.PairInputs.
func (c *Calibrator) Inputs(block int) (fusion.Inputs, error) {
	b := c.src.Blocks[block]
	sides := []*side{&c.original}
	if len(c.replaced) > 0 && !b.Mixed() {
		sides = append(sides, &c.fused)
	}
	for {
		least := slices.MinFunc(sides, func(a, b *side) int { return cmp.Compare(a.layer, b.layer) })
		if least.layer >= b.Depth {
			break
		}
		if err := c.pass(least); err != nil {
			return nil, err
		}
	}
	for _, s := range sides {
		if err := c.collect(s, b.Depth); err != nil {
			return nil, err
		}
	}
	s := sides[len(sides)-1]
	in := sideInputs{c, s, c.original.weights}
	switch {
	case b.Experts > 0:
		return newExpertInputs(in, b.Expert), nil
	case s == &c.original:
		return in, nil
	}
	return pairedInputs{in, c.part.Blocks[block].MLP.Normed}, nil
}

// Mixture implements Calibration.
func (c *Calibrator) Mixture(block int) (fusion.RoutedInputs, error) {
	in, err := c.Inputs(block)
	if err != nil {
		return nil, err
	}
	return routedInputs{in.(expertInputs).sideInputs}, nil
}

// Rewind implements Calibration.
func (c *Calibrator) Rewind() {
	c.Close()
	c.original = side{layer: -1}
}

// Replace implements Calibration: later blocks see the compressed one's output.
func (c *Calibrator) Replace(block int, compressed func() (*fusion.Block, error)) error {
	if len(c.replaced) == 0 { // until now the models were one
		var err error
		if c.fused.before, err = c.original.before.copy(); err != nil {
			return err
		}
		c.fused.layer = c.original.layer
	}
	c.replaced[block] = compressed
	return nil
}

// load has the weights of a layer in c.part, those of c.replaced in place of the
// original's where asked for.
func (c *Calibrator) load(depth int, replaced bool) (err error) {
	if c.part == nil || c.at != depth {
		c.part = nil // its memory may go before the next layer's comes
		if c.part, err = c.src.Part(depth); err != nil {
			return err
		}
		c.at = depth
	}
	if !replaced {
		return nil
	}
	for i, b := range c.part.Blocks {
		if compressed, ok := c.replaced[i]; ok && b.Depth == depth {
			block, err := compressed()
			if err != nil {
				return err
			}
			Install(b.MLP, block)
			c.at = -2 // no longer the original's
		}
	}
	return nil
}

// each runs f on the states of all batches.
func (c *Calibrator) each(f func(i int, in *model.Input) error) error {
	for i := range c.batches {
		if err := c.ctx.Err(); err != nil {
			return err
		}
		c.tape.Reset(0)
		in := &c.batches[i]
		if err := f(i, in); err != nil {
			return err
		}
		if c.at != -1 {
			c.tokens += int64(len(in.IDs) + len(in.DecoderIDs))
		}
		if c.progress != nil {
			c.progress(i+1, len(c.batches))
		}
	}
	return nil
}

// pass brings a side's states through the layer before which they wait.
func (c *Calibrator) pass(s *side) error {
	next := side{layer: s.layer + 1, before: s.after}
	s.after = states{}
	if next.before.x.file == nil {
		if err := c.load(s.layer, s == &c.fused); err != nil {
			return err
		}
		err := c.each(func(i int, in *model.Input) (err error) {
			var x model.State
			if s.layer < 0 {
				x = c.part.Embed(c.tape, in)
			} else if x, err = s.before.read(c.tape, i, c.src.Config.Hidden); err == nil {
				x = c.part.Layer(c.tape, s.layer, x, in)
			}
			if err != nil {
				return err
			}
			return next.before.write(x)
		})
		if err != nil {
			next.close()
			return err
		}
	}
	s.close()
	*s = next
	return nil
}

// collect notes the inputs of a layer's MLPs, and of the original what they give.
func (c *Calibrator) collect(s *side, depth int) error {
	if depth < s.layer {
		return fmt.Errorf("calibration: expected blocks in order of depth, found layer %d after %d", depth, s.layer)
	}
	if s.collected {
		return nil
	}
	if err := c.load(depth, false); err != nil {
		return err
	}
	var block *model.Block // an MLP that is not of a mixture
	mixture := -1
	for _, b := range c.part.Blocks {
		switch {
		case b.Depth != depth:
		case b.Experts > 0:
			mixture = b.Mixture
		case !b.Shared:
			block = b
		}
	}
	if s == &c.fused && block != nil { // what this MLP itself gives is not asked for
		mlp := *block.MLP
		Install(block.MLP, stub(block))
		defer func() { *block.MLP = mlp }()
	}
	err := c.each(func(i int, in *model.Input) error {
		x, err := s.before.read(c.tape, i, c.src.Config.Hidden)
		if err != nil {
			return err
		}
		x = c.part.Layer(c.tape, depth, x, in)
		if mixture >= 0 {
			err = s.noteMixture(c.tape, c.part.Mixed(mixture))
		} else {
			err = s.note(c.tape, block, s == &c.original)
		}
		if err == nil && s == &c.original {
			err = s.after.write(x)
		}
		return err
	})
	if s.collected = err == nil; err != nil {
		s.forget()
	}
	return err
}

// note writes what an MLP has just seen and given.
func (s *side) note(t *nn.Tape, b *model.Block, original bool) error {
	if err := s.inputs.write(b.MLP.X); err != nil {
		return err
	}
	stream := b.MLP.Residual
	if original {
		switch {
		case b.MLP.Normed:
			stream = b.MLP.Y
		case stream == nil:
			stream = t.Add(b.MLP.Y, b.MLP.X, 0)
		default:
			stream = t.Add(b.MLP.Y, stream, 0)
		}
		if b.MLP.Residual != nil || b.MLP.Normed {
			s.weights = model.AppendStreamWeights(s.weights, stream)
		}
	}
	if stream == nil {
		return nil
	}
	return s.stream.write(stream)
}

// noteMixture writes what a mixture has just seen, and what its router did.
func (s *side) noteMixture(t *nn.Tape, m model.Mixed) error {
	r := route{experts: slices.Clone(m.Routing.Expert), weights: slices.Clone(m.Routing.Weight)}
	for i, slot := range m.Routing.Slot {
		if slot < 0 {
			r.experts[i] = -1
		}
	}
	if m.Residual != nil {
		r.stream = model.AppendStreamWeights(nil, t.Add(m.Y, m.Residual, 0))
		s.weights = append(s.weights, r.stream...)
	}
	s.routes = append(s.routes, r)
	return s.inputs.write(m.X)
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

// sideInputs streams the inputs of a layer's MLP, or of its mixture, in one model.
type sideInputs struct {
	c       *Calibrator
	s       *side
	weights []float32
}

// Weights implements fusion.WeightedInputs.
func (in sideInputs) Weights() []float32 { return in.weights }

// Each implements fusion.Inputs.
func (in sideInputs) Each(f func(x []float32, tokens int) error) error {
	return in.each(func(_ int, x []float32, tokens int) error { return f(x, tokens) })
}

// each is Each that tells the batch too.
func (in sideInputs) each(f func(batch int, x []float32, tokens int) error) error {
	hidden := in.c.src.Config.Hidden
	var x []float32
	for i := range in.c.batches {
		if err := in.c.ctx.Err(); err != nil {
			return err
		}
		var err error
		if x, err = in.s.inputs.read(i, x); err != nil {
			return err
		}
		if err := f(i, x, len(x)/hidden); err != nil {
			return err
		}
	}
	return nil
}

// routedInputs streams what a mixture's router saw, and what it did with it.
type routedInputs struct{ sideInputs }

// EachRouted implements fusion.RoutedInputs.
func (in routedInputs) EachRouted(f func(x []float32, experts []int32, weights []float32, tokens int) error) error {
	return in.each(func(batch int, x []float32, tokens int) error {
		r := &in.s.routes[batch]
		return f(x, r.experts, r.weights, tokens)
	})
}

// expertInputs streams the tokens that are routed to an expert.
type expertInputs struct {
	sideInputs
	rows [][]int32 // of each batch
}

// newExpertInputs finds an expert's tokens. The error of its output for one counts by the
// square of what multiplies that, beside the token's share of the stream.
func newExpertInputs(in sideInputs, expert int) expertInputs {
	x := expertInputs{sideInputs{in.c, in.s, []float32{}}, make([][]int32, len(in.s.routes))}
	k := in.c.src.Config.Mixture.TopK
	for i := range in.s.routes {
		r := &in.s.routes[i]
		for j, e := range r.experts {
			if int(e) != expert {
				continue
			}
			w := r.weights[j] * r.weights[j]
			if r.stream != nil {
				w *= r.stream[j/k]
			}
			x.rows[i], x.weights = append(x.rows[i], int32(j/k)), append(x.weights, max(w, 1e-30))
		}
	}
	return x
}

// Each implements fusion.Inputs.
func (in expertInputs) Each(f func(x []float32, tokens int) error) error {
	hidden := in.c.src.Config.Hidden
	var x []float32
	for i, rows := range in.rows {
		if err := in.c.ctx.Err(); err != nil {
			return err
		}
		if len(rows) == 0 {
			continue
		}
		var err error
		if x, err = in.s.inputs.readRows(i, rows, hidden, x); err != nil {
			return err
		}
		if err := f(x, len(rows)); err != nil {
			return err
		}
	}
	return nil
}

// pairedInputs streams what collect has noted of both models.
type pairedInputs struct {
	sideInputs
	normed bool // see model.MLP
}

// EachPair implements fusion.PairInputs: what the block is to give is what the
// original's stream is after its MLP, less the fused model's before it; or, where a
// norm stands between, what the original's gives.
func (in pairedInputs) EachPair(f func(x, want []float32, tokens int) error) error {
	i := 0
	var want, stream []float32
	return in.Each(func(x []float32, tokens int) (err error) {
		if want, err = in.c.original.stream.read(i, want); err != nil {
			return err
		}
		before := x
		if s := &in.s.stream; s.file != nil && !in.normed {
			if stream, err = s.read(i, stream); err != nil {
				return err
			}
			before = stream
		}
		if !in.normed {
			kernel.Axpy(-1, before, want)
		}
		i++
		return f(x, want, tokens)
	})
}
