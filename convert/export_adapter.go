package convert

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"mlpfusion/checkpoint"
	"mlpfusion/model"
)

// AdapterOf is the folder of an exported model's adapter.
func AdapterOf(out string) string { return strings.TrimSuffix(out, "/") + "-adapter" }

// withAdapter writes the adapter beside the model, compares both together with the source,
// and puts them in their places.
func (e *exporter) withAdapter(ctx context.Context, o *checkpoint.Output, out string, opt ExportOptions) error {
	folder, err := checkpoint.CreateOutput(AdapterOf(out), opt.Overwrite)
	if err != nil {
		return err
	}
	defer folder.Abort()
	if err := e.writeAdapter(folder, out); err != nil {
		return err
	}
	if err := e.verify(ctx, o.Dir, folder.Dir, opt); err != nil {
		return err
	}
	if err := o.Commit(); err != nil {
		return err
	}
	return folder.Commit()
}

// writeAdapter writes the adapter of the exported model out: with the units that the
// plain blocks have, and P multiplied into what reads them. h = P·σ(x) is σ(x) there, so
// that A·h is (A·P)·σ(x).
func (e *exporter) writeAdapter(o *checkpoint.Output, out string) error {
	a := e.src.Adapter
	if _, err := e.src.Adapted(); err != nil {
		return err
	}
	values := map[string][]float32{}
	var specs []checkpoint.Spec
	for _, name := range a.Names() {
		t, _ := a.Tensor(name)
		v := make([]float32, t.Elements())
		if err := t.ReadFloat32(v); err != nil {
			return err
		}
		values[name] = v
		specs = append(specs, checkpoint.Spec{Name: name, DType: checkpoint.F32, Shape: slices.Clone(t.Shape)})
	}
	for i := range specs {
		s := &specs[i]
		b, role, parts := e.adapted(s.Name)
		switch {
		case b == nil:
		case b.Form.Weights != "" || slices.ContainsFunc(e.blocks, func(o *model.Block) bool { return model.Owner(e.blocks, o) == b }):
			return fmt.Errorf("%s: expected an adapter of MLPs that have matrices of their own, found %s, which shares them: merge it first", a.Path, b.Name)
		case role == "down":
			values[s.Name], s.Shape[1] = e.columns(b, values[s.Name], s.Shape[0]), e.widths[b]
		default:
			values[s.Name], s.Shape[0] = e.rows(b, values[s.Name], parts), parts*e.widths[b]
		}
	}
	plain := *a
	plain.Base = out
	if err := plain.Write(o, specs, func(name string) []float32 { return values[name] }); err != nil || a.Config == nil {
		return err
	}
	cfg := a.Config.Clone()
	cfg.Delete("mlpfusion")
	for key, width := range e.result.Widths {
		if err := cfg.Set(key, width); err != nil {
			return err
		}
	}
	return o.WriteConfig(cfg)
}

// adapted returns the block and the role of a matrix of which a tensor of the adapter
// has the units, and how many such matrices one below the other; nil if it has none.
func (e *exporter) adapted(name string) (b *model.Block, role string, parts int) {
	for _, b := range e.blocks {
		for _, t := range b.Tensors() {
			first, second := checkpoint.AdapterTensors(t.Module())
			switch {
			case t.Role == "down" && name == first, (t.Role == "gate" || t.Role == "up") && name == second:
				return b, t.Role, max(1, t.Parts)
			}
		}
	}
	return nil, "", 0
}

// columns returns A (rank × units) of a down projection for the plain block.
func (e *exporter) columns(b *model.Block, a []float32, rank int) []float32 {
	wide, scale := e.widths[b], e.scale[b]
	plain := make([]float32, rank*wide)
	for i, k := range e.units(b) {
		f := float32(1)
		if scale != nil {
			f = scale[k]
		}
		for r := range rank {
			plain[r*wide+i] = f * a[r*b.Width+k]
		}
	}
	return plain
}

// rows returns B (parts·units × rank) of what makes the units for the plain block.
func (e *exporter) rows(b *model.Block, m []float32, parts int) []float32 {
	wide, rank := e.widths[b], len(m)/(parts*b.Width)
	plain := make([]float32, parts*wide*rank)
	for p := range parts {
		for i, k := range e.units(b) {
			copy(plain[(p*wide+i)*rank:][:rank], m[(p*b.Width+k)*rank:])
		}
	}
	return plain
}
