package convert

import (
	"cmp"
	"context"
	"errors"
	"slices"

	"mlpfusion/checkpoint"
	"mlpfusion/fusion"
	"mlpfusion/model"
)

// maxShard is the size at which transformers too begins a new file.
const maxShard = 5 << 30

// replacement is what a block becomes.
type replacement struct {
	block *model.Block
	as    *model.Block // where it lies in the new checkpoint, if under another number; else nil
	form  model.BlockConfig
	// values reads or makes what the block's tensors hold, by role; it is called
	// when they are written.
	values func() (map[string][]float32, error)
}

// to is where the block lies in the new checkpoint.
func (b *replacement) to() *model.Block { return cmp.Or(b.as, b.block) }

// rewriting is a checkpoint that is written again with some blocks in other forms, each
// where its first tensor stood or, if it had none, behind all others; all else is copied
// byte for byte. Experts that lie in one stack are written together, those that are not
// replaced among them.
type rewriting struct {
	src    *model.Source
	blocks []replacement
	// store gives the type of a block's tensor in place of that of the matrices it replaces.
	store func(t *model.Tensor, was checkpoint.DType) checkpoint.DType
	drop  []*model.Block   // that are no longer there
	rows  map[string][]int // of tensors of which only some rows stay, by their names in the file

	was map[*model.Block]checkpoint.DType // of the matrices that a block replaces
}

// write writes the weights to the directory dir.
func (r *rewriting) write(ctx context.Context, dir string) error {
	r.was = map[*model.Block]checkpoint.DType{}
	blocks := r.withStacks(r.blocks)
	groups := stacks(blocks)
	for i := range blocks {
		own := blocks[i].block
		if o := model.Owner(r.src.Blocks, own); o != nil {
			own = o
		}
		for _, t := range own.Tensors() {
			if t.Role == "up" || t.Role == "up.u" {
				r.was[blocks[i].to()] = r.src.Find(t.Name).DType
			}
		}
	}
	replaced := map[string][]replacement{} // by names of the source's tensors; nil: dropped
	for _, b := range r.drop {
		for _, name := range r.names(b) {
			replaced[name] = nil
		}
	}
	for _, group := range groups {
		for _, b := range group {
			for _, name := range r.names(b.block) {
				replaced[name] = group
			}
		}
	}
	weights := r.src.Dir.Weights
	var specs []checkpoint.Spec
	placed := map[*model.Block]bool{}
	place := func(group []replacement) {
		if first := group[0].block; !placed[first] {
			placed[first] = true
			specs = append(specs, r.specs(group)...)
		}
	}
	for _, name := range weights.Names() {
		if group, ok := replaced[name]; !ok {
			t, _ := weights.Tensor(name)
			s := t.Spec()
			if rows, ok := r.rows[name]; ok {
				s.Shape = append([]int{len(rows)}, s.Shape[1:]...)
			}
			specs = append(specs, s)
		} else if group != nil {
			place(group)
		}
	}
	for _, group := range groups {
		place(group)
	}
	w, err := checkpoint.Create(dir, specs, checkpoint.WriteOptions{MaxShardBytes: maxShard, Metadata: map[string]string{"format": "pt"}})
	if err != nil {
		return err
	}
	defer w.Abort()
	for _, group := range groups {
		if err := errors.Join(ctx.Err(), r.writeGroup(w, group)); err != nil {
			return err
		}
	}
	for _, name := range weights.Names() {
		if err := ctx.Err(); err != nil {
			return err
		}
		if _, ok := replaced[name]; ok {
			continue
		}
		t, _ := weights.Tensor(name)
		if err := r.copy(w, t); err != nil {
			return err
		}
	}
	return w.Commit()
}

// copy writes a tensor, or its rows that stay, as it is.
func (r *rewriting) copy(w *checkpoint.Writer, t *checkpoint.Tensor) error {
	rows, ok := r.rows[t.Name]
	if !ok {
		return w.Copy(t.Name, t)
	}
	var raw []byte
	for _, i := range rows {
		row := t.Rows(i, i+1)
		part := make([]byte, row.Elements()*t.DType.Size())
		if err := row.Read(part); err != nil {
			return err
		}
		raw = append(raw, part...)
	}
	return w.WriteBytes(t.Name, raw)
}

// names are those of the source's tensors that hold a block.
func (r *rewriting) names(b *model.Block) (names []string) {
	for _, t := range b.Tensors() {
		names = append(names, r.src.Find(t.Name).Names()...)
	}
	return names
}

// withStacks adds to the replaced blocks those that lie in one tensor with some of them,
// as they are.
func (r *rewriting) withStacks(blocks []replacement) []replacement {
	given, in := map[*model.Block]*replacement{}, map[string]bool{}
	for i, b := range blocks {
		given[b.block] = &blocks[i]
		for _, name := range r.names(b.block) {
			in[name] = true
		}
	}
	var all []replacement
	for _, b := range r.src.Blocks {
		switch {
		case given[b] != nil:
			all = append(all, *given[b])
		case !slices.Contains(r.drop, b) && slices.ContainsFunc(r.names(b), func(name string) bool { return in[name] }):
			all = append(all, replacement{block: b, form: b.Form, values: func() (map[string][]float32, error) { return r.src.Read(b) }})
		}
	}
	return all
}

// stacks groups the experts that their family keeps in one stack; others are alone.
func stacks(blocks []replacement) (groups [][]replacement) {
	for i, b := range blocks {
		up := b.block.Up
		if i > 0 && up.Stack > 0 && blocks[i-1].block.Up.In == up.In {
			last := len(groups) - 1
			groups[last] = append(groups[last], b)
		} else {
			groups = append(groups, blocks[i:i+1:i+1])
		}
	}
	return groups
}

// each calls f with the tensors of the file that the blocks' new forms have, and the
// stated ones that they hold.
func (r *rewriting) each(group []replacement, f func(name string, file model.FileTensor, stated []model.Tensor, d checkpoint.DType) error) error {
	var stated []model.Tensor
	for _, b := range group {
		stated = append(stated, b.to().In(b.form)...)
	}
	for _, file := range model.FileTensors(stated) {
		first := &stated[file.Parts[0]]
		d := r.store(first, r.was[first.Block])
		if err := f(r.src.FileName(file.Name), file, stated, d); err != nil {
			return err
		}
	}
	return nil
}

func (r *rewriting) specs(group []replacement) (specs []checkpoint.Spec) {
	_ = r.each(group, func(name string, file model.FileTensor, _ []model.Tensor, d checkpoint.DType) error {
		specs = append(specs, checkpoint.Spec{Name: name, DType: d, Shape: file.Shape})
		if d == checkpoint.I8 {
			specs = append(specs, checkpoint.Spec{Name: model.Int8Scale(name), DType: checkpoint.F32, Shape: file.Shape[:len(file.Shape)-1]})
		}
		return nil
	})
	return specs
}

func (r *rewriting) writeGroup(w *checkpoint.Writer, group []replacement) error {
	all := map[*model.Block]map[string][]float32{}
	for _, b := range group {
		var err error
		if all[b.to()], err = b.values(); err != nil {
			return err
		}
	}
	return r.each(group, func(name string, file model.FileTensor, stated []model.Tensor, d checkpoint.DType) error {
		values := file.Values(func(i int) []float32 { return all[stated[i].Block][stated[i].Role] })
		if d != checkpoint.I8 {
			return w.WriteFloat32(name, values)
		}
		cols := file.Shape[len(file.Shape)-1]
		q, scale := fusion.QuantizeInt8(values, len(values)/cols, cols)
		raw := make([]byte, len(q))
		for i, v := range q {
			raw[i] = byte(v)
		}
		return errors.Join(w.WriteBytes(name, raw), w.WriteFloat32(model.Int8Scale(name), scale))
	})
}
