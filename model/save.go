package model

import (
	"fmt"
	"strconv"

	"mlpfusion/checkpoint"
)

// Save writes the model's weights and config.json to a directory being made:
// the config of the source directory with this model's labels. Weights are
// float32.
func (m *Model) Save(out *checkpoint.Output, source *checkpoint.Config) error {
	cfg := source.Clone()
	if err := m.describeHead(cfg); err != nil {
		return err
	}
	specs := make([]checkpoint.Spec, len(m.Tensors))
	for i, t := range m.Tensors {
		specs[i] = checkpoint.Spec{Name: t.Name, DType: checkpoint.F32, Shape: t.Shape}
	}
	w, err := checkpoint.Create(out.Dir, specs, checkpoint.WriteOptions{Metadata: map[string]string{"format": "pt"}})
	if err != nil {
		return err
	}
	defer w.Abort()
	for i := range m.Tensors {
		t := &m.Tensors[i]
		values := t.values()
		if t.Transposed {
			values = Transpose(values, t.Shape[1], t.Shape[0])
		}
		if err := w.WriteFloat32(t.Name, values); err != nil {
			return err
		}
	}
	if err := w.Commit(); err != nil {
		return err
	}
	return out.WriteConfig(cfg)
}

// describeHead sets the keys by which transformers knows the head.
func (m *Model) describeHead(cfg *checkpoint.Config) error {
	type entry struct {
		key   string
		value any
	}
	entries := []entry{{"architectures", []string{m.family.architectures[m.Config.Head]}}, {"dtype", "float32"}}
	for _, key := range []string{"_name_or_path", "num_labels", "torch_dtype", "id2label", "label2id", "problem_type"} {
		cfg.Delete(key)
	}
	if m.Config.Head != LanguageModel {
		id2label, label2id := map[string]string{}, map[string]int{}
		for i, l := range m.Config.Labels {
			id2label[strconv.Itoa(i)] = l
			label2id[l] = i
		}
		problem := "single_label_classification"
		if m.Config.Head == Regression {
			problem = "regression"
		}
		entries = append(entries, entry{"id2label", id2label}, entry{"label2id", label2id}, entry{"problem_type", problem})
	}
	for _, kv := range entries {
		if err := cfg.Set(kv.key, kv.value); err != nil {
			return fmt.Errorf("config.json: %s: %w", kv.key, err)
		}
	}
	return nil
}
