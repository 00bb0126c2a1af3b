package convert

import (
	"context"
	"path/filepath"
	"slices"
	"strings"

	"mlpfusion/checkpoint"
	"mlpfusion/model"
	"mlpfusion/python"
)

// autoMap is the key of config.json that says, for transformers' auto classes, which
// class of a file beside it loads the model.
const autoMap = "auto_map"

// WithCode writes a checkpoint as it is, every block in its own form, with the file by
// which transformers loads it given trust_remote_code=True. Int8 matrices, which that
// file does not read, become float32.
func WithCode(ctx context.Context, src *checkpoint.Dir, out string, overwrite bool) (*Exported, error) {
	m, err := model.Open(src)
	if err != nil {
		return nil, err
	}
	o, err := checkpoint.CreateOutput(out, overwrite)
	if err != nil {
		return nil, err
	}
	defer o.Abort()
	var blocks []replacement
	for _, b := range m.Blocks {
		if b.Form.Weights == "" && slices.ContainsFunc(b.Tensors(), func(t model.Tensor) bool { return m.Find(t.Name).DType == checkpoint.I8 }) {
			blocks = append(blocks, replacement{block: b, form: b.Form, values: func() (map[string][]float32, error) { return m.Read(b) }})
		}
	}
	r := rewriting{src: m, blocks: blocks, store: func(*model.Tensor, checkpoint.DType) checkpoint.DType { return checkpoint.F32 }}
	if err := r.write(ctx, o.Dir); err != nil {
		return nil, err
	}
	cfg := src.Config.Clone()
	if err := o.Carry(src.Path, src.Carry); err != nil {
		return nil, err
	}
	if err := layCode(o, cfg, m.Config); err != nil {
		return nil, err
	}
	if err := o.WriteConfig(cfg); err != nil {
		return nil, err
	}
	if err := o.Commit(); err != nil {
		return nil, err
	}
	e := &exporter{result: &Exported{SourceBytes: weightBytes(src.Path), Bytes: weightBytes(out)}}
	return e.result, e.count(out)
}

// layCode lays the file beside a checkpoint being made, and has config.json name what of
// it loads the model.
func layCode(o *checkpoint.Output, cfg *checkpoint.Config, m *model.Config) error {
	classes := m.AutoClasses()
	for auto, class := range classes {
		classes[auto] = strings.TrimSuffix(python.ModelingFile, ".py") + "." + class
	}
	if err := cfg.Set(autoMap, classes); err != nil {
		return err
	}
	return checkpoint.WriteFileAtomic(filepath.Join(o.Dir, python.ModelingFile), python.Modeling)
}
