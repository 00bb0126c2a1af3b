package convert

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"

	"mlpfusion/checkpoint"
	"mlpfusion/fusion"
	"mlpfusion/model"
)

// write puts the new checkpoint together: the compressed blocks in the storage
// type of what they replace, all else byte for byte.
func (f *fuser) write(ctx context.Context, o *checkpoint.Output) error {
	sums, err := f.src.SHA256(ctx, nil)
	if err != nil {
		return err
	}
	blockOf := map[string]int{} // checkpoint names of tensors that are replaced
	stored := map[int]checkpoint.DType{}
	prefixed := map[int]string{} // what the checkpoint's names have before the family's, or lack
	for _, i := range f.chosen {
		b := f.blocks[i]
		for _, name := range b.Matrices() {
			blockOf[f.tensor(name+".weight").Name] = i
			if b.Bias {
				blockOf[f.tensor(name+".bias").Name] = i
			}
		}
		up := f.tensor(b.Up + ".weight")
		stored[i] = up.DType
		prefixed[i] = strings.TrimSuffix(b.Up+".weight", up.Name)
	}
	var specs []checkpoint.Spec
	for _, name := range f.src.Weights.Names() {
		t, _ := f.src.Weights.Tensor(name)
		i, replaced := blockOf[name]
		if !replaced {
			specs = append(specs, t.Spec())
			continue
		}
		if t.Name != f.tensor(f.blocks[i].Up+".weight").Name {
			continue // all of a block stands where its up projection stood
		}
		_, block, err := f.load(f.path(i), f.blocks[i])
		if err != nil {
			return err
		}
		for _, p := range parts(f.blocks[i], block) {
			name := strings.TrimPrefix(p.name, prefixed[i])
			d := f.storage(p, stored[i])
			specs = append(specs, checkpoint.Spec{Name: name, DType: d, Shape: p.shape})
			if d == checkpoint.I8 {
				specs = append(specs, checkpoint.Spec{Name: name + model.Int8Scale, DType: checkpoint.F32, Shape: p.shape[:1]})
			}
		}
	}
	w, err := checkpoint.Create(o.Dir, specs, checkpoint.WriteOptions{MaxShardBytes: maxShard, Metadata: map[string]string{"format": "pt"}})
	if err != nil {
		return err
	}
	defer w.Abort()
	for _, i := range f.chosen {
		_, block, err := f.load(f.path(i), f.blocks[i])
		if err != nil {
			return err
		}
		for _, p := range parts(f.blocks[i], block) {
			if err := f.writePart(w, strings.TrimPrefix(p.name, prefixed[i]), p, stored[i]); err != nil {
				return err
			}
		}
	}
	if err := copyOthers(ctx, f.src.Weights, w, func(name string) bool { _, ok := blockOf[name]; return ok }); err != nil {
		return err
	}
	if err := w.Commit(); err != nil {
		return err
	}
	cfg := f.src.Config.Clone()
	if err := cfg.SetFusion(checkpoint.Fusion{
		Method: f.opt.Method, Scale: checkpoint.ScaleKeep, Layers: f.layers, Seed: f.opt.Fusion.Seed,
		Source: checkpoint.Source{Name: f.opt.Name, SHA256: sums},
	}); err != nil {
		return err
	}
	if err := o.WriteConfig(cfg); err != nil {
		return err
	}
	return o.Carry(f.src.Path, f.src.Carry)
}

// copyOthers copies the tensors that are not replaced, byte for byte.
func copyOthers(ctx context.Context, src *checkpoint.Reader, w *checkpoint.Writer, replaced func(name string) bool) error {
	for _, name := range src.Names() {
		if err := ctx.Err(); err != nil {
			return err
		}
		if replaced(name) {
			continue
		}
		t, _ := src.Tensor(name)
		if err := w.Copy(t); err != nil {
			return err
		}
		t.Drop()
	}
	return nil
}

// maxShard is the size at which transformers too begins a new file.
const maxShard = 5 << 30

// storage is how a block's tensor is kept, replacing one kept as weights. P and
// the step multipliers are float32 always: cluster sizes above 256 are not all
// bfloat16 numbers. Biases are never int8.
func (f *fuser) storage(p part, weights checkpoint.DType) checkpoint.DType {
	switch {
	case strings.HasSuffix(p.name, ".mlp_scale"), strings.HasSuffix(p.name, ".mlp_step"), f.opt.Store == "f32":
		return checkpoint.F32
	case f.opt.Store == "bf16":
		return checkpoint.BF16
	case f.opt.Store == "int8" && len(p.shape) == 2:
		return checkpoint.I8
	}
	return weights
}

func (f *fuser) writePart(w *checkpoint.Writer, name string, p part, weights checkpoint.DType) error {
	if f.storage(p, weights) != checkpoint.I8 {
		return w.WriteFloat32(name, p.values)
	}
	q, scale := fusion.QuantizeInt8(p.values, p.shape[0], p.shape[1])
	raw := make([]byte, len(q))
	for i, v := range q {
		raw[i] = byte(v)
	}
	return errors.Join(w.WriteBytes(name, raw), w.WriteFloat32(name+model.Int8Scale, scale))
}

// weightBytes is the size of a directory's weight files.
func weightBytes(dir string) (n int64) {
	files, _ := filepath.Glob(filepath.Join(dir, "*.safetensors"))
	for _, f := range files {
		if info, err := os.Stat(f); err == nil {
			n += info.Size()
		}
	}
	return n
}
