package convert

import (
	"context"
	"fmt"
	"maps"
	"math"
	"slices"

	"mlpfusion/checkpoint"
	"mlpfusion/kernel"
	"mlpfusion/model"
	"mlpfusion/nn"
	"mlpfusion/python"
)

// ExportOptions are the choices of Export.
type ExportOptions struct {
	// Pad fills narrower blocks with dead units, so that all have one width.
	Pad bool
	// Nemotron writes a Llama as nemotron-nas, in which each layer has a width of its own,
	// of which Pad then fills up multiples. What is nemotron-nas stays that.
	Nemotron  bool
	Overwrite bool
	Pool      *kernel.Pool
	// Note, which may be nil, is told before anything is written what will not be
	// smaller for it.
	Note func(format string, args ...any)
	// Adapter, which may be nil, is exported too, to AdapterOf the result.
	Adapter *checkpoint.Adapter
	// Sample is the batch on which source and result are compared.
	Sample *model.Input
}

// Exported is what Export made.
type Exported struct {
	Width int `json:"width"` // of every block, or where they differ of every expert, or the widest
	// Widths are those that config.json states, by its keys.
	Widths map[string]int `json:"widths,omitempty"`
	// LayerWidths are those of nemotron-nas, layer by layer, in place of Widths.
	LayerWidths []int `json:"layer_widths,omitempty"`
	Padded      int   `json:"padded"` // dead units added, over all blocks
	Dense       int   `json:"dense"`  // matrices whose factors were multiplied out again
	// Parameters, and those of the model before any compression.
	Parameters         int     `json:"parameters"`
	OriginalParameters int     `json:"original_parameters"`
	SourceBytes        int64   `json:"source_bytes"` // of the weight files
	Bytes              int64   `json:"bytes"`
	Difference         float64 `json:"difference"` // largest difference of a logit, source against result
	// ClusterSize is the mean of P over the units that have one. P is folded into the
	// down projections: AdamW then moves their columns 1/P_k of what P kept would
	// (docs/method.md), which this times the learning rate repairs on average.
	ClusterSize float64 `json:"cluster_size,omitempty"`
}

// Export writes a checkpoint that plain transformers loads: P multiplied into
// the down projections, factors multiplied out, one width for all blocks (or, as
// nemotron-nas, for each). It
// reopens what it wrote and compares logits before anything takes its place.
func Export(ctx context.Context, src *checkpoint.Dir, out string, opt ExportOptions) (*Exported, error) {
	m, err := model.OpenAs(src, model.LoadOptions{NewHead: true, Adapter: opt.Adapter, Merge: true})
	if err != nil {
		return nil, err
	}
	e := &exporter{src: m, blocks: m.Blocks, nemotron: opt.Nemotron || m.Config.Type == model.NemotronNAS, widths: map[*model.Block]int{}, result: &Exported{}}
	if err := e.readScales(); err != nil {
		return nil, err
	}
	choose := e.chooseWidth
	if e.nemotron {
		choose = e.chooseNemotronWidths
	}
	if err := choose(opt.Pad); err != nil {
		return nil, err
	}
	cfg, err := e.config()
	if err != nil {
		return nil, err
	}
	o, err := checkpoint.CreateOutput(out, opt.Overwrite)
	if err != nil {
		return nil, err
	}
	defer o.Abort()
	if opt.Note != nil {
		e.warn(opt.Note)
	}
	if err := e.write(ctx, o); err != nil {
		return nil, err
	}
	carry := slices.DeleteFunc(slices.Clone(src.Carry), func(name string) bool { return name == python.ModelingFile })
	if err := o.Carry(src.Path, carry); err != nil {
		return nil, err
	}
	if e.nemotron {
		if err := layCode(o, cfg, &model.Config{Type: model.NemotronNAS}); err != nil {
			return nil, err
		}
	}
	if err := o.WriteConfig(cfg); err != nil {
		return nil, err
	}
	if opt.Adapter == nil {
		if err := e.verify(ctx, o.Dir, "", opt); err != nil {
			return nil, err
		}
		if err := o.Commit(); err != nil {
			return nil, err
		}
	} else if err := e.withAdapter(ctx, o, out, opt); err != nil {
		return nil, err
	}
	e.result.SourceBytes, e.result.Bytes = weightBytes(src.Path), weightBytes(out)
	return e.result, e.count(out)
}

// count notes the parameters of what was written.
func (e *exporter) count(out string) error {
	dir, err := checkpoint.OpenDir(out)
	if err != nil {
		return err
	}
	defer dir.Close()
	c, err := Inspect(dir)
	if err == nil {
		e.result.Parameters, e.result.OriginalParameters = c.Parameters, c.OriginalParameters
	}
	return err
}

type exporter struct {
	src      *model.Source
	blocks   []*model.Block
	nemotron bool
	scale    map[*model.Block][]float32 // P where there is one
	widths   map[*model.Block]int       // in the result
	narrow   bool                       // the weights are stored in 16 bits
	result   *Exported
}

// readScales reads the cluster sizes of all blocks.
func (e *exporter) readScales() error {
	e.scale = map[*model.Block][]float32{}
	for _, b := range e.blocks {
		if b.Form.ClusterSizes {
			p, err := e.src.Find(b.ClusterSizesName()).Values()
			if err != nil {
				return fmt.Errorf("%s: %w", e.src.Dir.Path, err)
			}
			e.scale[b] = p
		}
	}
	var sum float64
	units := 0
	for _, b := range e.blocks {
		if p := e.scale[b]; p != nil {
			for _, k := range e.units(b) {
				sum += float64(p[k])
				units++
			}
		}
	}
	if units > 0 {
		e.result.ClusterSize = sum / float64(units)
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

// chooseWidth finds the one width that the blocks of each key of config.json have.
func (e *exporter) chooseWidth(pad bool) error {
	groups := map[string][]*model.Block{}
	for _, b := range e.blocks {
		groups[b.WidthKey] = append(groups[b.WidthKey], b)
	}
	e.result.Widths = map[string]int{}
	for _, key := range slices.Sorted(maps.Keys(groups)) {
		if err := e.chooseWidthOf(key, groups[key], pad); err != nil {
			return err
		}
	}
	e.result.Width = e.result.Widths[e.blocks[0].WidthKey]
	for _, b := range e.blocks {
		if b.Experts > 0 {
			e.result.Width = e.result.Widths[b.WidthKey]
		}
	}
	return nil
}

// chooseWidthOf is chooseWidth for the blocks of a key.
func (e *exporter) chooseWidthOf(key string, blocks []*model.Block, pad bool) error {
	widest, narrowest := blocks[0], blocks[0]
	width, part := map[*model.Block]int{}, map[*model.Block]float64{}
	for _, b := range blocks {
		width[b] = len(e.units(b))
		part[b] = float64(width[b]) / float64(b.WidthTimes)
		if part[b] > part[widest] {
			widest = b
		}
		if part[b] < part[narrowest] {
			narrowest = b
		}
	}
	e.result.Widths[key] = int(math.Ceil(part[widest]))
	padded := 0
	for _, b := range blocks {
		e.widths[b] = b.WidthTimes * e.result.Widths[key]
		padded += e.widths[b] - width[b]
	}
	if padded == 0 || pad {
		e.result.Padded += padded
		return nil
	}
	instead := "fuse with --layers all"
	if f, err := e.src.Dir.Config.Fusion(); err == nil && f != nil && len(f.Layers) == len(e.blocks) {
		instead = "fuse with --width or --ratio in place of --budget"
	}
	if e.src.Config.Type == "llama" {
		instead += ", or give --nemotron-nas for what serves one width a layer"
	}
	return fmt.Errorf("%s: expected one width in all blocks, since transformers has one %s for all layers; found %d in %s and %d in %s: give --pad to fill the narrower ones with dead units (exact, but nothing gets smaller or faster), or %s",
		e.src.Dir.Path, key, width[narrowest], narrowest.Name, width[widest], widest.Name, instead)
}

// warn tells which blocks are larger in their plain form.
func (e *exporter) warn(note func(format string, args ...any)) {
	int8, ranks, shared := 0, 0, 0
	for _, b := range e.blocks {
		up := e.src.Find(b.Up.Name + ".weight")
		switch {
		case b.Form.Weights != "":
			shared++
		case b.Form.Rank > 0:
			ranks++
		case up != nil && up.DType == checkpoint.I8:
			int8++
		}
	}
	for _, c := range []struct {
		blocks int
		what   string
	}{
		{int8, "matrices are int8, which plain transformers does not load: they are written as float32, four times as large"},
		{ranks, "matrices are low-rank factors: they are multiplied out, as large as before compression"},
		{shared, "matrices are another expert's: each expert is written with its own"},
	} {
		if c.blocks > 0 {
			note("%s: of %d of %d blocks the %s", e.src.Dir.Path, c.blocks, len(e.blocks), c.what)
		}
	}
	switch {
	case e.result.Padded > 0 && e.nemotron:
		note("%s: %d dead units fill the blocks up to multiples of %d", e.src.Dir.Path, e.result.Padded, model.NemotronMultiple)
	case e.result.Padded > 0:
		note("%s: %d dead units fill the narrower blocks: nothing gets smaller or faster", e.src.Dir.Path, e.result.Padded)
	}
}

func (e *exporter) write(ctx context.Context, o *checkpoint.Output) error {
	var blocks []replacement
	for _, b := range e.blocks {
		blocks = append(blocks, replacement{block: b, form: model.BlockConfig{Width: e.widths[b]}, values: func() (map[string][]float32, error) { return e.plain(b) }})
	}
	r := rewriting{src: e.src, blocks: blocks, store: func(_ *model.Tensor, was checkpoint.DType) checkpoint.DType {
		if was == checkpoint.I8 {
			return checkpoint.F32
		}
		e.narrow = e.narrow || was != checkpoint.F32
		return was
	}}
	return r.write(ctx, o.Dir)
}

// plain returns a block's tensors with P folded in, factors multiplied out and
// dead units added.
func (e *exporter) plain(b *model.Block) (map[string][]float32, error) {
	from := b
	if o := model.Owner(e.blocks, b); o != nil {
		from = o
	}
	values, err := e.src.Read(from)
	if err != nil {
		return nil, err
	}
	c, wide, p := b.Width, e.widths[b], b.Hidden
	units, scale := e.units(b), e.scale[b]
	for _, name := range []string{"gate", "up"} {
		w := e.matrix(values, name, c, p, b.Form.Rank)
		if w == nil {
			continue
		}
		bias := values[name+".bias"]
		plain, plainBias := make([]float32, wide*p), make([]float32, wide)
		for i, k := range units {
			copy(plain[i*p:], w[k*p:(k+1)*p])
			if bias != nil {
				plainBias[i] = bias[k]
			}
		}
		values[name], values[name+".bias"] = plain, plainBias
	}
	w := e.matrix(values, "down", p, c, b.Form.Rank)
	plain := make([]float32, p*wide)
	for i, k := range units {
		f := float32(1)
		if scale != nil {
			f = scale[k]
		}
		for r := range p {
			plain[r*wide+i] = f * w[r*c+k]
		}
	}
	values["down"] = plain
	return values, nil
}

// matrix returns a matrix (rows × cols) that may be kept as factors of a rank; nil if
// the block has none of the name.
func (e *exporter) matrix(values map[string][]float32, name string, rows, cols, rank int) []float32 {
	u, v := values[name+".u"], values[name+".v"]
	if u == nil {
		return values[name]
	}
	w := make([]float32, rows*cols)
	var s kernel.Scratch
	s.Gemm(kernel.FP32, rows, cols, rank, kernel.Mat{Data: u, Stride: rank}, kernel.Mat{Data: v, Stride: cols}, w, cols, kernel.Epilogue{})
	e.result.Dense++
	return w
}

// config is config.json with the widths, and in the block "mlpfusion" where the
// checkpoint comes from.
func (e *exporter) config() (*checkpoint.Config, error) {
	cfg := e.src.Dir.Config.Clone()
	cfg.Delete(autoMap)
	for key, width := range e.result.Widths {
		if err := cfg.Set(key, width); err != nil {
			return nil, err
		}
	}
	if e.nemotron {
		if err := e.describeNemotron(cfg); err != nil {
			return nil, err
		}
	}
	f, err := cfg.Fusion()
	if err != nil {
		return nil, err
	}
	if f != nil {
		f.Scale = checkpoint.ScaleFold
		for _, b := range e.blocks {
			l, ok := f.Layers[b.Name]
			if !ok {
				continue
			}
			l.Padded, l.Width = e.widths[b]-len(e.units(b)), e.widths[b]
			l.Rank, l.Masked, l.Weights = 0, false, ""
			f.Layers[b.Name] = l
		}
		if err := cfg.SetFusion(*f); err != nil {
			return nil, err
		}
	}
	return cfg, nil
}

// verify runs both checkpoints, with their adapters if there are any, and compares their
// logits on the sample.
func (e *exporter) verify(ctx context.Context, dir, adapter string, opt ExportOptions) error {
	written, err := checkpoint.OpenDir(dir)
	if err != nil {
		return err
	}
	defer written.Close()
	written.Config.Delete("mlpfusion") // transformers does not know it
	var a *checkpoint.Adapter
	if adapter != "" {
		if a, err = checkpoint.OpenAdapter(adapter); err != nil {
			return err
		}
		defer a.Close()
	}
	want, err := logits(ctx, e.src.Dir, opt.Adapter, opt)
	if err != nil {
		return err
	}
	got, err := logits(ctx, written, a, opt)
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
	if e.narrow {
		tolerance = 0.05 * max(1, size)
	}
	if !(e.result.Difference <= tolerance) {
		return fmt.Errorf("%s: expected the exported model's logits within %g of the source's, found a difference of %g; nothing was written", e.src.Dir.Path, tolerance, e.result.Difference)
	}
	return nil
}

// logits runs a checkpoint's model on the sample, a layer at a time; a head it lacks is
// made anew, the same for both.
func logits(ctx context.Context, dir *checkpoint.Dir, adapter *checkpoint.Adapter, opt ExportOptions) ([]float32, error) {
	src, err := model.OpenAs(dir, model.LoadOptions{NewHead: true, Adapter: adapter, Merge: true})
	if err != nil {
		return nil, err
	}
	y, err := model.Logits(nn.NewTape(opt.Pool), src, opt.Sample)
	if err != nil {
		return nil, err
	}
	return slices.Clone(y.Data), ctx.Err()
}
