package convert

import (
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
	form  model.BlockConfig
	// values reads or makes what the block's tensors hold, by role; it is called
	// when they are written.
	values func() (map[string][]float32, error)
}

// rewrite writes the weights of src to the directory dir with some blocks in other
// forms, each where its first tensor stood or, if it had none, behind all others; all
// else is copied byte for byte. Tensors of a block are kept in the type that store
// gives for a tensor of it and the type of the matrices they replace. Experts that lie in
// one stack are written together, those that are not replaced among them.
func rewrite(ctx context.Context, src *model.Source, dir string, blocks []replacement, store func(t *model.Tensor, was checkpoint.DType) checkpoint.DType) error {
	r := &rewriting{src: src, store: store, was: map[*model.Block]checkpoint.DType{}}
	blocks = r.withStacks(blocks)
	groups := stacks(blocks)
	replaced := map[string][]replacement{} // by names of the source's tensors
	for i := range blocks {
		b := blocks[i].block
		own := b
		if o := model.Owner(src.Blocks, b); o != nil {
			own = o
		}
		for _, t := range own.Tensors() {
			if t.Role == "up" || t.Role == "up.u" {
				r.was[b] = src.Find(t.Name).DType
			}
		}
	}
	for _, group := range groups {
		for _, b := range group {
			for _, name := range r.names(b.block) {
				replaced[name] = group
			}
		}
	}
	weights := src.Dir.Weights
	var specs []checkpoint.Spec
	placed := map[*model.Block]bool{}
	place := func(group []replacement) {
		if first := group[0].block; !placed[first] {
			placed[first] = true
			specs = append(specs, r.specs(group)...)
		}
	}
	for _, name := range weights.Names() {
		if b := replaced[name]; b != nil {
			place(b)
		} else {
			t, _ := weights.Tensor(name)
			specs = append(specs, t.Spec())
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
		if err := errors.Join(ctx.Err(), r.write(w, group)); err != nil {
			return err
		}
	}
	for _, name := range weights.Names() {
		if err := ctx.Err(); err != nil {
			return err
		}
		if replaced[name] != nil {
			continue
		}
		t, _ := weights.Tensor(name)
		if err := w.Copy(name, t); err != nil {
			return err
		}
	}
	return w.Commit()
}

type rewriting struct {
	src   *model.Source
	store func(t *model.Tensor, was checkpoint.DType) checkpoint.DType
	was   map[*model.Block]checkpoint.DType // of its matrices
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
		if given[b] != nil {
			all = append(all, *given[b])
		} else if slices.ContainsFunc(r.names(b), func(name string) bool { return in[name] }) {
			all = append(all, replacement{b, b.Form, func() (map[string][]float32, error) { return r.src.Read(b) }})
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
		stated = append(stated, b.block.In(b.form)...)
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

func (r *rewriting) write(w *checkpoint.Writer, group []replacement) error {
	all := map[*model.Block]map[string][]float32{}
	for _, b := range group {
		var err error
		if all[b.block], err = b.values(); err != nil {
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
