package convert

import (
	"context"
	"errors"

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
// gives for a tensor of it and the type of the matrices they replace.
func rewrite(ctx context.Context, src *model.Source, dir string, blocks []replacement, store func(t *model.Tensor, was checkpoint.DType) checkpoint.DType) error {
	r := &rewriting{src: src, store: store, was: map[*model.Block]checkpoint.DType{}}
	replaced := map[string]*replacement{} // by names of the source's tensors
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
		for _, t := range b.Tensors() {
			for _, name := range src.Find(t.Name).Names() {
				replaced[name] = &blocks[i]
			}
		}
	}
	weights := src.Dir.Weights
	var specs []checkpoint.Spec
	placed := map[*replacement]bool{}
	place := func(b *replacement) {
		if !placed[b] {
			placed[b] = true
			specs = append(specs, r.specs(b)...)
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
	for i := range blocks {
		place(&blocks[i])
	}
	w, err := checkpoint.Create(dir, specs, checkpoint.WriteOptions{MaxShardBytes: maxShard, Metadata: map[string]string{"format": "pt"}})
	if err != nil {
		return err
	}
	defer w.Abort()
	for i := range blocks {
		if err := errors.Join(ctx.Err(), r.write(w, &blocks[i])); err != nil {
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

// each calls f with the tensors of the file that a block's new form has, and the
// stated ones that they hold.
func (r *rewriting) each(b *replacement, f func(name string, file model.FileTensor, stated []model.Tensor, d checkpoint.DType) error) error {
	stated := b.block.In(b.form)
	for _, file := range model.FileTensors(stated) {
		d := r.store(&stated[file.Parts[0]], r.was[b.block])
		if err := f(r.src.FileName(file.Name), file, stated, d); err != nil {
			return err
		}
	}
	return nil
}

func (r *rewriting) specs(b *replacement) (specs []checkpoint.Spec) {
	_ = r.each(b, func(name string, file model.FileTensor, _ []model.Tensor, d checkpoint.DType) error {
		specs = append(specs, checkpoint.Spec{Name: name, DType: d, Shape: file.Shape})
		if d == checkpoint.I8 {
			specs = append(specs, checkpoint.Spec{Name: model.Int8Scale(name), DType: checkpoint.F32, Shape: file.Shape[:1]})
		}
		return nil
	})
	return specs
}

func (r *rewriting) write(w *checkpoint.Writer, b *replacement) error {
	all, err := b.values()
	if err != nil {
		return err
	}
	return r.each(b, func(name string, file model.FileTensor, stated []model.Tensor, d checkpoint.DType) error {
		values := file.Values(func(i int) []float32 { return all[stated[i].Role] })
		if d != checkpoint.I8 {
			return w.WriteFloat32(name, values)
		}
		q, scale := fusion.QuantizeInt8(values, file.Shape[0], file.Shape[1])
		raw := make([]byte, len(q))
		for i, v := range q {
			raw[i] = byte(v)
		}
		return errors.Join(w.WriteBytes(name, raw), w.WriteFloat32(model.Int8Scale(name), scale))
	})
}
