package model

import (
	"fmt"
	"slices"
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
	files := FileTensors(m.Tensors)
	specs := make([]checkpoint.Spec, len(files))
	for i, f := range files {
		specs[i] = checkpoint.Spec{Name: f.Name, DType: checkpoint.F32, Shape: f.Shape}
	}
	w, err := checkpoint.Create(out.Dir, specs, checkpoint.WriteOptions{Metadata: map[string]string{"format": "pt"}})
	if err != nil {
		return err
	}
	defer w.Abort()
	for _, f := range files {
		if err := w.WriteFloat32(f.Name, f.Values(func(i int) []float32 { return m.Tensors[i].values() })); err != nil {
			return err
		}
	}
	if err := w.Commit(); err != nil {
		return err
	}
	return out.WriteConfig(cfg)
}

// FileTensor is a tensor of a checkpoint's file: a stated one, or several that are
// its parts.
type FileTensor struct {
	Name       string
	Shape      []int
	Transposed bool
	Parts      []int // the stated tensors' places in their list, in the parts' order
}

// FileTensors lists what holds the stated tensors, in their order.
func FileTensors(stated []Tensor) []FileTensor {
	var files []FileTensor
	at := map[string]int{}
	whole := wholeStacks(stated)
	for i, t := range stated {
		if t.Stack > 0 && !whole[t.In] {
			t.Place = Place{Transposed: t.Transposed}
		}
		k, ok := at[t.file()]
		if !ok {
			k = len(files)
			at[t.file()] = k
			files = append(files, FileTensor{Name: t.file(), Shape: t.shape(t.Shape), Transposed: t.Transposed, Parts: make([]int, max(1, t.Parts))})
		}
		files[k].Parts[t.Part] = i
	}
	return files
}

// wholeStacks tells which stacks have all their matrices stated, in one shape. Where
// that is not so, each lies in a tensor of its own name.
func wholeStacks(stated []Tensor) map[string]bool {
	parts, shapes := map[string]int{}, map[string][]int{}
	for _, t := range stated {
		if t.Stack == 0 {
			continue
		}
		if was, ok := shapes[t.In]; ok && !slices.Equal(was, t.Shape) {
			parts[t.In] = -t.Parts
		}
		shapes[t.In] = t.Shape
		parts[t.In]++
	}
	whole := map[string]bool{}
	for _, t := range stated {
		whole[t.In] = t.Stack > 0 && parts[t.In] == t.Parts
	}
	return whole
}

// Values returns what the file's tensor holds, given the values of each stated one as
// it is used.
func (f *FileTensor) Values(of func(stated int) []float32) []float32 {
	v := of(f.Parts[0])
	switch {
	case len(f.Parts) > 1:
		v = nil
		for _, i := range f.Parts {
			v = append(v, of(i)...)
		}
	case f.Transposed:
		v = Transpose(v, f.Shape[1], f.Shape[0])
	}
	return v
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
