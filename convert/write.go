package convert

import (
	"context"
	"os"
	"path/filepath"

	"mlpfusion/checkpoint"
	"mlpfusion/model"
)

// write puts the new checkpoint together: the compressed blocks in the storage
// type of what they replace, all else byte for byte.
func (f *fuser) write(ctx context.Context, o *checkpoint.Output) error {
	cfg := f.src.Config.Clone()
	left, err := f.dropExperts(cfg)
	if err != nil {
		return err
	}
	r := &rewriting{src: f.model, store: f.storage, rows: left.rows}
	for _, i := range f.chosen {
		b := f.blocks[i]
		if f.layers[b.Name].Width == 0 {
			r.drop = append(r.drop, b)
			continue
		}
		form, err := f.form(i)
		if err != nil {
			return err
		}
		r.blocks = append(r.blocks, replacement{b, left.blocks[b], form, func() (map[string][]float32, error) {
			block, _, err := f.loadOwn(i)
			values := map[string][]float32{}
			if err == nil {
				for role, v := range blockValues(block) {
					values[role] = *v
				}
			}
			return values, err
		}})
	}
	if err := r.write(ctx, o.Dir); err != nil {
		return err
	}
	f.layers = left.renamed(f.layers)
	if err := cfg.SetFusion(checkpoint.Fusion{
		Method: f.opt.Method, Scale: checkpoint.ScaleKeep, Layers: f.layers, Seed: f.opt.Fusion.Seed,
		Source: checkpoint.Source{Name: f.opt.Name, SHA256: f.sums}, Kept: left.kept, Experts: left.experts,
	}); err != nil {
		return err
	}
	if err := o.WriteConfig(cfg); err != nil {
		return err
	}
	return o.Carry(f.src.Path, f.src.Carry)
}

// storage is how a block's tensor is kept, replacing matrices kept as was. P and the
// step sizes are float32 always: cluster sizes above 256 are not all bfloat16
// numbers. Biases are never int8.
func (f *fuser) storage(t *model.Tensor, was checkpoint.DType) checkpoint.DType {
	d := was
	switch f.opt.Store {
	case "f32":
		d = checkpoint.F32
	case "bf16":
		d = checkpoint.BF16
	case "int8":
		if len(t.Shape) == 2 {
			d = checkpoint.I8
		}
	}
	if t.Role == "scale" || t.Role == "step" || d == checkpoint.I8 && len(t.Shape) < 2 {
		return checkpoint.F32
	}
	return d
}

// weightBytes is the size of a directory's weight files, or of a GGUF file.
func weightBytes(dir string) (n int64) {
	files, _ := filepath.Glob(filepath.Join(dir, "*.safetensors"))
	if info, err := os.Stat(dir); err == nil && info.Mode().IsRegular() {
		files = []string{dir}
	}
	for _, f := range files {
		if info, err := os.Stat(f); err == nil {
			n += info.Size()
		}
	}
	return n
}
