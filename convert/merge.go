package convert

import (
	"context"
	"fmt"
	"slices"

	"mlpfusion/checkpoint"
	"mlpfusion/kernel"
	"mlpfusion/model"
)

// Merged is what MergeAdapter made.
type Merged struct {
	Layers      int   `json:"layers"` // to whose matrices the adapter added something
	Whole       int   `json:"whole"`  // tensors that are the adapter's own
	SourceBytes int64 `json:"source_bytes"`
	Bytes       int64 `json:"bytes"`
}

// MergeAdapter writes src with an adapter's products added to its matrices, W + scale·B·A, and
// the tensors that were trained whole in place of its own; all else is copied byte for
// byte. What changes keeps the type that it was stored in, int8 aside, which becomes
// float32.
func MergeAdapter(ctx context.Context, pool *kernel.Pool, src *checkpoint.Dir, a *checkpoint.Adapter, out string, overwrite bool) (*Merged, error) {
	m, err := model.OpenAs(src, model.LoadOptions{Adapter: a, Merge: true})
	if err != nil {
		return nil, err
	}
	g := &merger{src: m, adapter: a, pool: pool, replaced: map[string]*merging{}, result: &Merged{}}
	if err := g.plan(); err != nil {
		return nil, err
	}
	o, err := checkpoint.CreateOutput(out, overwrite)
	if err != nil {
		return nil, err
	}
	defer o.Abort()
	if err := g.write(ctx, o.Dir); err != nil {
		return nil, err
	}
	cfg := src.Config.Clone()
	if a.Config != nil {
		cfg = a.Config.Clone()
		for _, key := range []string{"dtype", "torch_dtype"} {
			cfg.Delete(key)
			if src.Config.Has(key) {
				if err := cfg.Set(key, src.Config.Raw(key)); err != nil {
					return nil, err
				}
			}
		}
	}
	if err := o.WriteConfig(cfg); err != nil {
		return nil, err
	}
	carry := slices.DeleteFunc(slices.Clone(src.Carry), func(name string) bool { return slices.Contains(a.Carry, name) })
	if err := o.Carry(src.Path, carry); err != nil {
		return nil, err
	}
	if err := o.Carry(a.Path, a.Carry); err != nil {
		return nil, err
	}
	if err := o.Commit(); err != nil {
		return nil, err
	}
	g.result.SourceBytes, g.result.Bytes = weightBytes(src.Path), weightBytes(out)
	return g.result, nil
}

type merger struct {
	src      *model.Source
	adapter  *checkpoint.Adapter
	pool     *kernel.Pool
	adapted  func(t *model.Tensor) bool
	replaced map[string]*merging // by the source's names
	all      []*merging
	result   *Merged
}

// merging is a tensor of the file that becomes another.
type merging struct {
	model.FileTensor
	spec checkpoint.Spec
}

// plan finds what changes.
func (g *merger) plan() (err error) {
	if g.adapted, err = g.src.Adapted(); err != nil {
		return err
	}
	for _, f := range model.FileTensors(g.src.Tensors) {
		_, whole := g.adapter.Tensor(f.Name)
		changes := false
		for _, i := range f.Parts {
			t := &g.src.Tensors[i]
			if !g.adapted(t) {
				continue
			}
			changes = true
			g.result.Layers++
			if t.Block != nil && t.Block.Form.Masked {
				return fmt.Errorf("%s: expected matrices without zeros to keep, found those of %s, which adding to would fill: use it with its adapter", g.src.Dir.Path, t.Block.Name)
			}
		}
		if !whole && !changes {
			continue
		}
		name := g.src.FileName(f.Name)
		names := []string{name}
		if whole {
			g.result.Whole++
		} else {
			names = g.src.Find(g.src.Tensors[f.Parts[0]].Name).Names()
			name = names[0]
		}
		x := &merging{f, checkpoint.Spec{Name: name, DType: checkpoint.F32, Shape: f.Shape}}
		if was, ok := g.src.Dir.Weights.Tensor(name); ok && was.DType.IsFloat() {
			x.spec.DType = was.DType
		}
		g.all = append(g.all, x)
		for _, n := range names {
			g.replaced[n] = x
		}
	}
	return nil
}

func (g *merger) write(ctx context.Context, dir string) error {
	weights := g.src.Dir.Weights
	var specs []checkpoint.Spec
	placed := map[*merging]bool{}
	place := func(x *merging) {
		if !placed[x] {
			placed[x] = true
			specs = append(specs, x.spec)
		}
	}
	for _, name := range weights.Names() {
		if x := g.replaced[name]; x != nil {
			place(x)
		} else {
			t, _ := weights.Tensor(name)
			specs = append(specs, t.Spec())
		}
	}
	for _, x := range g.all {
		place(x)
	}
	w, err := checkpoint.Create(dir, specs, checkpoint.WriteOptions{MaxShardBytes: maxShard, Metadata: map[string]string{"format": "pt"}})
	if err != nil {
		return err
	}
	defer w.Abort()
	for _, x := range g.all {
		if err := ctx.Err(); err != nil {
			return err
		}
		values, err := g.values(x)
		if err != nil {
			return err
		}
		if err := w.WriteFloat32(x.spec.Name, values); err != nil {
			return err
		}
	}
	for _, name := range weights.Names() {
		if err := ctx.Err(); err != nil {
			return err
		}
		if g.replaced[name] != nil {
			continue
		}
		t, _ := weights.Tensor(name)
		if err := w.Copy(name, t); err != nil {
			return err
		}
	}
	return w.Commit()
}

// values returns what the file's tensor becomes.
func (g *merger) values(x *merging) ([]float32, error) {
	parts := map[int][]float32{}
	for _, i := range x.Parts {
		t := &g.src.Tensors[i]
		v, err := g.src.Find(t.Name).Values()
		if err != nil {
			return nil, err
		}
		if t.Transposed {
			v = model.Transpose(v, t.Shape[0], t.Shape[1])
		}
		if g.adapted(t) {
			if err := model.AddPath(g.pool, g.adapter, t, v); err != nil {
				return nil, err
			}
		}
		parts[i] = v
	}
	return x.Values(func(i int) []float32 { return parts[i] }), nil
}
