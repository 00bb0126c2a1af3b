package convert

import (
	"context"
	"fmt"
	"io"
	"os"
	"unsafe"

	"mlpfusion/checkpoint"
	"mlpfusion/fusion"
	"mlpfusion/kernel"
	"mlpfusion/model"
	"mlpfusion/nn"
)

// Calibrator runs example texts through the original model and through the one
// whose blocks are being compressed, a layer at a time, and gives each block the
// inputs it sees in both. States wait in temporary files, so memory does not
// grow with the number of texts.
type Calibrator struct {
	ctx      context.Context
	pool     *kernel.Pool
	tape     *nn.Tape
	batches  []model.Input
	sides    [2]side // the original, and the one being compressed
	progress func(done, total int)
}

// side is one model's run.
type side struct {
	m      *model.Model
	layer  int      // the states wait before this layer
	states *os.File // (tokens × hidden) float32, batch after batch
	inputs *os.File // of the layer's MLP
}

// NewCalibrator loads the model twice. The batches are packed texts; progress,
// which may be nil, is told the batches done for each block.
func NewCalibrator(ctx context.Context, pool *kernel.Pool, dir *checkpoint.Dir, batches []model.Input, progress func(done, total int)) (*Calibrator, error) {
	c := &Calibrator{ctx: ctx, pool: pool, tape: nn.NewTape(pool), batches: batches, progress: progress}
	for i := range c.sides {
		m, _, err := model.Load(dir, model.LoadOptions{NewHead: true})
		if err != nil {
			return nil, err
		}
		c.sides[i] = side{m: m, layer: -1}
	}
	for _, b := range batches {
		if err := c.sides[0].m.Check(&b); err != nil {
			return nil, err
		}
	}
	return c, nil
}

// Close removes the temporary files.
func (c *Calibrator) Close() {
	for _, s := range c.sides {
		for _, f := range []*os.File{s.states, s.inputs} {
			if f != nil {
				f.Close()
			}
		}
	}
}

// Inputs implements Calibration. The blocks must be asked for in order of depth.
func (c *Calibrator) Inputs(block int) (fusion.Inputs, error) {
	for i := range c.sides {
		if err := c.advance(&c.sides[i], block); err != nil {
			return nil, err
		}
	}
	return &blockInputs{c}, nil
}

// Rewind implements Calibration.
func (c *Calibrator) Rewind() {
	c.Close()
	for i := range c.sides {
		c.sides[i] = side{m: c.sides[i].m, layer: -1}
	}
}

// advance moves a side's states before the block's layer and collects the
// inputs of its MLP.
func (c *Calibrator) advance(s *side, block int) error {
	target := s.m.Blocks[block].Depth
	if target < s.layer {
		return fmt.Errorf("calibration: expected blocks in order of depth, found layer %d after %d", target, s.layer)
	}
	states, err := temporary()
	if err != nil {
		return err
	}
	inputs, err := temporary()
	if err != nil {
		return err
	}
	old := s.states
	for i := range c.batches {
		if err := c.ctx.Err(); err != nil {
			return err
		}
		in := &c.batches[i]
		c.tape.Reset(0)
		var x model.State
		from := s.layer
		if from < 0 {
			x, from = s.m.Embed(c.tape, in), 0
		} else {
			x.X = c.tape.New(len(in.IDs), s.m.Config.Hidden)
			if _, err := io.ReadFull(old, asBytes(x.X.Data)); err != nil {
				return err
			}
		}
		for l := from; l < target; l++ {
			x = s.m.Layer(c.tape, l, x, in)
		}
		if _, err := states.Write(asBytes(x.X.Data)); err != nil {
			return err
		}
		s.m.Layer(c.tape, target, x, in)
		if _, err := inputs.Write(asBytes(s.m.Blocks[block].MLP.X.Data)); err != nil {
			return err
		}
		if c.progress != nil {
			c.progress(i+1, len(c.batches))
		}
	}
	for _, f := range []*os.File{s.states, s.inputs} {
		if f != nil {
			f.Close()
		}
	}
	s.states, s.inputs, s.layer = states, inputs, target
	_, err = states.Seek(0, io.SeekStart)
	return err
}

// Replace implements Calibration: later blocks see the compressed one's output.
func (c *Calibrator) Replace(block int, b *fusion.Block) error {
	Install(c.sides[1].m.Blocks[block].MLP, b)
	return nil
}

// Install gives a loaded model's MLP the weights of a compressed block, for
// forward passes and gradients; the model's parameter list keeps the old ones.
func Install(m *model.MLP, b *fusion.Block) {
	matrix := func(data []float32, cols int) *nn.Weight {
		return &nn.Weight{Data: data, Grad: make([]float32, len(data)), Rows: len(data) / cols, Cols: cols}
	}
	layer := func(w, bias []float32, cols int) *nn.Linear {
		l := &nn.Linear{W: matrix(w, cols)}
		if bias != nil {
			l.B = matrix(bias, len(bias))
		}
		return l
	}
	m.Scale, m.Step, m.GateV, m.UpV, m.DownV = b.Scale, b.Step, nil, nil, nil
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

// blockInputs streams what advance has collected.
type blockInputs struct{ c *Calibrator }

// Each implements fusion.Inputs.
func (b *blockInputs) Each(f func(x []float32, tokens int) error) error {
	return b.EachPair(func(x, _ []float32, tokens int) error { return f(x, tokens) })
}

// EachPair implements fusion.PairInputs.
func (b *blockInputs) EachPair(f func(x, original []float32, tokens int) error) error {
	c := b.c
	for _, s := range c.sides {
		if _, err := s.inputs.Seek(0, io.SeekStart); err != nil {
			return err
		}
	}
	var buffers [2][]float32
	for _, in := range c.batches {
		if err := c.ctx.Err(); err != nil {
			return err
		}
		n := len(in.IDs) * c.sides[0].m.Config.Hidden
		for i := range buffers {
			if cap(buffers[i]) < n {
				buffers[i] = make([]float32, n)
			}
			buffers[i] = buffers[i][:n]
			if _, err := io.ReadFull(c.sides[i].inputs, asBytes(buffers[i])); err != nil {
				return err
			}
		}
		if err := f(buffers[1], buffers[0], len(in.IDs)); err != nil {
			return err
		}
	}
	return nil
}

// temporary returns an open file that is gone when closed.
func temporary() (*os.File, error) {
	f, err := os.CreateTemp("", "mlpfusion-calibration-*")
	if err != nil {
		return nil, err
	}
	return f, os.Remove(f.Name())
}

// asBytes is the memory of x.
func asBytes(x []float32) []byte {
	if len(x) == 0 {
		return nil
	}
	return unsafe.Slice((*byte)(unsafe.Pointer(&x[0])), 4*len(x))
}
