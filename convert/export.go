package convert

import (
	"cmp"
	"context"
	"fmt"
	"math"
	"slices"
	"strings"

	"mlpfusion/checkpoint"
	"mlpfusion/kernel"
	"mlpfusion/model"
	"mlpfusion/nn"
)

// ExportOptions are the choices of Export.
type ExportOptions struct {
	// Pad fills narrower blocks with dead units, so that all have one width.
	Pad       bool
	Overwrite bool
	Pool      *kernel.Pool
	// Sample is the batch on which source and result are compared.
	Sample *model.Input
}

// Exported is what Export made.
type Exported struct {
	Width       int     `json:"width"`        // of every block
	Padded      int     `json:"padded"`       // dead units added, over all blocks
	Dense       int     `json:"dense"`        // matrices whose factors were multiplied out again
	SourceBytes int64   `json:"source_bytes"` // of the weight files
	Bytes       int64   `json:"bytes"`
	Difference  float64 `json:"difference"` // largest difference of a logit, source against result
}

// Export writes a checkpoint that plain transformers loads: P multiplied into
// the down projections, factors multiplied out, one width for all blocks. It
// reopens what it wrote and compares logits before anything takes its place.
func Export(ctx context.Context, src *checkpoint.Dir, out string, opt ExportOptions) (*Exported, error) {
	cfg, err := model.ReadConfig(src)
	if err != nil {
		return nil, err
	}
	stated, blocks, err := model.Describe(cfg)
	if err != nil {
		return nil, err
	}
	found, _, err := model.Bind(src, cfg, stated, true)
	if err != nil {
		return nil, err
	}
	e := &exporter{src: src, found: map[string]*checkpoint.Tensor{}, blocks: blocks, result: &Exported{}}
	for i, t := range stated {
		e.found[t.Name] = found[i]
	}
	if err := e.readScales(); err != nil {
		return nil, err
	}
	if err := e.chooseWidth(opt.Pad); err != nil {
		return nil, err
	}
	o, err := checkpoint.CreateOutput(out, opt.Overwrite)
	if err != nil {
		return nil, err
	}
	defer o.Abort()
	if err := e.write(ctx, o); err != nil {
		return nil, err
	}
	if err := e.writeConfig(o, model.WidthKey(cfg.Type)); err != nil {
		return nil, err
	}
	if err := o.Carry(src.Path, src.Carry); err != nil {
		return nil, err
	}
	if err := e.verify(ctx, o.Dir, opt); err != nil {
		return nil, err
	}
	if err := o.Commit(); err != nil {
		return nil, err
	}
	e.result.SourceBytes, e.result.Bytes = weightBytes(src.Path), weightBytes(out)
	return e.result, nil
}

type exporter struct {
	src    *checkpoint.Dir
	found  map[string]*checkpoint.Tensor // by stated name
	blocks []*model.Block
	scale  map[*model.Block][]float32 // P where there is one
	result *Exported
}

// readScales reads the cluster sizes of all blocks.
func (e *exporter) readScales() error {
	e.scale = map[*model.Block][]float32{}
	for _, b := range e.blocks {
		if b.Form.Scale {
			p := make([]float32, b.Width)
			if err := e.found[b.ScaleName()].ReadFloat32(p); err != nil {
				return fmt.Errorf("%s: %w", e.src.Path, err)
			}
			e.scale[b] = p
		}
	}
	return nil
}

// units lists the hidden units of a block in its plain form: those of the
// matrices it uses, less those that are not its own, whose P is 0.
func (e *exporter) units(b *model.Block) []int {
	p := e.scale[b]
	var units []int
	for k := range b.Width {
		if p == nil || p[k] != 0 {
			units = append(units, k)
		}
	}
	return units
}

// chooseWidth finds the one width that the result has.
func (e *exporter) chooseWidth(pad bool) error {
	widest, narrowest := e.blocks[0], e.blocks[0]
	width := map[*model.Block]int{}
	for _, b := range e.blocks {
		width[b] = len(e.units(b))
		if width[b] > width[widest] {
			widest = b
		}
		if width[b] < width[narrowest] {
			narrowest = b
		}
	}
	e.result.Width = width[widest]
	if width[widest] == width[narrowest] || pad {
		for _, b := range e.blocks {
			e.result.Padded += e.result.Width - width[b]
		}
		return nil
	}
	return fmt.Errorf("%s: expected one width in all blocks, since transformers has one intermediate size for all layers; found %d in %s and %d in %s: give --pad to fill the narrower ones with dead units (exact, but nothing gets smaller or faster), or fuse with --layers all",
		e.src.Path, width[narrowest], narrowest.Name, width[widest], widest.Name)
}

func (e *exporter) write(ctx context.Context, o *checkpoint.Output) error {
	owner := map[string]*model.Block{} // by checkpoint name
	for _, b := range e.blocks {
		names := []string{b.ScaleName(), b.StepName()}
		for _, name := range b.Matrices() {
			names = append(names, name+".weight", name+".bias", name+".factor_u", name+".factor_v")
		}
		for _, name := range names {
			if t := e.found[name]; t != nil {
				owner[t.Name] = b
				owner[t.Name+model.Int8Scale] = b
			}
		}
	}
	var specs []checkpoint.Spec
	done := map[*model.Block]bool{}
	add := func(b *model.Block) {
		if !done[b] {
			done[b] = true
			for _, p := range e.shapes(b) {
				specs = append(specs, checkpoint.Spec{Name: p.name, DType: e.stored(b), Shape: p.shape})
			}
		}
	}
	for _, name := range e.src.Weights.Names() {
		t, _ := e.src.Weights.Tensor(name)
		b, mine := owner[name]
		if !mine {
			specs = append(specs, t.Spec())
			continue
		}
		add(b)
	}
	for _, b := range e.blocks {
		add(b) // with matrices of another's, and no P
	}
	w, err := checkpoint.Create(o.Dir, specs, checkpoint.WriteOptions{MaxShardBytes: maxShard, Metadata: map[string]string{"format": "pt"}})
	if err != nil {
		return err
	}
	defer w.Abort()
	for _, b := range e.blocks {
		if err := ctx.Err(); err != nil {
			return err
		}
		list, err := e.plain(b)
		if err != nil {
			return err
		}
		for _, p := range list {
			if err := w.WriteFloat32(p.name, p.values); err != nil {
				return err
			}
		}
	}
	if err := copyOthers(ctx, e.src.Weights, w, func(name string) bool { return owner[name] != nil }); err != nil {
		return err
	}
	return w.Commit()
}

// stored is the storage type of a block's plain weights: that of its matrices,
// or float32 where those are kept as int8.
func (e *exporter) stored(b *model.Block) checkpoint.DType {
	if d := e.first(b).DType; d != checkpoint.I8 {
		return d
	}
	return checkpoint.F32
}

// first is the checkpoint's tensor of a block's up matrix, or its last factor.
func (e *exporter) first(b *model.Block) *checkpoint.Tensor { return e.found[firstName(e.source(b))] }

func firstName(b *model.Block) string {
	if b.Form.Rank > 0 {
		return b.Up + ".factor_u"
	}
	return b.Up + ".weight"
}

// source is the block whose matrices b uses, which may be b.
func (e *exporter) source(b *model.Block) *model.Block {
	if o := model.Owner(e.blocks, b); o != nil {
		return o
	}
	return b
}

// shapes lists the tensors of a block in its plain form, under the names the
// checkpoint uses, which may lack the family's prefix.
func (e *exporter) shapes(b *model.Block) []part {
	prefix := strings.TrimSuffix(firstName(e.source(b)), e.first(b).Name)
	var list []part
	for _, name := range b.Matrices() {
		out, in := e.result.Width, b.Hidden
		if name == b.Down {
			out, in = in, out
		}
		name = strings.TrimPrefix(name, prefix)
		list = append(list, matrixPart(b, name, out, in, nil))
		if b.Bias {
			list = append(list, part{name: name + ".bias", shape: []int{out}})
		}
	}
	return list
}

// plain returns a block's tensors with P folded in, factors multiplied out and
// dead units added.
func (e *exporter) plain(b *model.Block) ([]part, error) {
	read := func(name string) ([]float32, error) {
		t := e.found[name]
		v := make([]float32, t.Elements())
		err := model.ReadValues(e.src.Weights, t, v)
		t.Drop()
		return v, err
	}
	matrix := func(name string, rows, cols int) ([]float32, error) {
		if b.Form.Rank == 0 {
			w, err := read(name + ".weight")
			if err == nil && b.Transposed {
				w = model.Transpose(w, cols, rows)
			}
			return w, err
		}
		u, err := read(name + ".factor_u")
		if err != nil {
			return nil, err
		}
		v, err := read(name + ".factor_v")
		if err != nil {
			return nil, err
		}
		w := make([]float32, rows*cols)
		var s kernel.Scratch
		s.Gemm(kernel.FP32, rows, cols, b.Form.Rank, kernel.Mat{Data: u, Stride: b.Form.Rank}, kernel.Mat{Data: v, Stride: cols}, w, cols, kernel.Epilogue{})
		e.result.Dense++
		return w, nil
	}
	c, wide, p := b.Width, e.result.Width, b.Hidden
	units, scale := e.units(b), e.scale[b]
	list, at := e.shapes(b), 0
	next := func(values []float32) {
		list[at].values = values
		at++
	}
	from := e.source(b)
	for _, name := range from.Matrices() {
		rows, cols := c, p
		if name == from.Down {
			rows, cols = p, c
		}
		w, err := matrix(name, rows, cols)
		if err != nil {
			return nil, err
		}
		var bias []float32
		if b.Bias {
			if bias, err = read(name + ".bias"); err != nil {
				return nil, err
			}
		}
		plain := make([]float32, wide*p)
		if name == from.Down {
			for i, k := range units {
				f := float32(1)
				if scale != nil {
					f = scale[k]
				}
				for r := range p {
					plain[r*wide+i] = f * w[r*c+k]
				}
			}
		} else {
			for i, k := range units {
				copy(plain[i*p:], w[k*p:(k+1)*p])
			}
			if b.Bias {
				own := make([]float32, wide)
				for i, k := range units {
					own[i] = bias[k]
				}
				bias = own
			}
		}
		rows, cols = wide, p
		if name == from.Down {
			rows, cols = p, wide
		}
		next(matrixPart(b, "", rows, cols, plain).values)
		if b.Bias {
			next(bias)
		}
	}
	return list, nil
}

// writeConfig says the one width, and in the block "mlpfusion" where the
// checkpoint comes from.
func (e *exporter) writeConfig(o *checkpoint.Output, widthKey string) error {
	cfg := e.src.Config.Clone()
	if err := cfg.Set(widthKey, e.result.Width); err != nil {
		return err
	}
	f, err := cfg.Fusion()
	if err != nil {
		return err
	}
	if f != nil {
		f.Scale = checkpoint.ScaleFold
		for _, b := range e.blocks {
			l, ok := f.Layers[b.Name]
			if !ok {
				continue
			}
			l.Padded, l.Width = e.result.Width-len(e.units(b)), e.result.Width
			l.Rank, l.Masked, l.Weights = 0, false, ""
			f.Layers[b.Name] = l
		}
		if err := cfg.SetFusion(*f); err != nil {
			return err
		}
	}
	return o.WriteConfig(cfg)
}

// verify loads both checkpoints and compares their logits on the sample.
func (e *exporter) verify(ctx context.Context, dir string, opt ExportOptions) error {
	written, err := checkpoint.OpenDir(dir)
	if err != nil {
		return err
	}
	defer written.Close()
	written.Config.Delete("mlpfusion") // transformers does not know it
	want, err := logits(ctx, e.src, opt)
	if err != nil {
		return err
	}
	got, err := logits(ctx, written, opt)
	if err != nil {
		return err
	}
	var size float64
	for i := range want {
		size = max(size, math.Abs(float64(want[i])))
		e.result.Difference = max(e.result.Difference, math.Abs(float64(want[i]-got[i])))
	}
	// Weights stored in 16 bits are rounded again when P is folded into them.
	tolerance := 1e-4 * max(1, size)
	if e.stored(e.blocks[0]) != checkpoint.F32 {
		tolerance = 0.05 * max(1, size)
	}
	if !(e.result.Difference <= tolerance) {
		return fmt.Errorf("%s: expected the exported model's logits within %g of the source's, found a difference of %g; nothing was written", e.src.Path, tolerance, e.result.Difference)
	}
	return nil
}

// logits runs a checkpoint's model on the sample; a head it lacks is made anew,
// the same for both.
func logits(ctx context.Context, dir *checkpoint.Dir, opt ExportOptions) ([]float32, error) {
	m, _, err := model.Load(dir, model.LoadOptions{NewHead: true})
	if err != nil {
		return nil, err
	}
	if err := cmp.Or(m.Check(opt.Sample), ctx.Err()); err != nil {
		return nil, err
	}
	return slices.Clone(m.Forward(nn.NewTape(opt.Pool), opt.Sample).Data), nil
}
