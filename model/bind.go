package model

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"mlpfusion/checkpoint"
)

// Source is a checkpoint directory under its family's statement: what it is to hold
// and where that lies.
type Source struct {
	Dir     *checkpoint.Dir
	Config  *Config
	Tensors []Tensor
	Blocks  []*Block
	Report
	found map[string]*Stored // by stated name
	seed  uint64             // of what is made anew
	// extra is what the names of the statement begin with and the checkpoint's do
	// not: a base model saved alone.
	extra string
	// Adapter is what the model is opened with; nil: nothing.
	Adapter *checkpoint.Adapter
}

// Report tells what a model does with a checkpoint besides reading it.
type Report struct {
	New    []string // tensors of the head that are made anew
	Unused []string // tensors of the checkpoint that the model does not use, such as other heads
}

// Stored is a stated tensor in a checkpoint: the tensor that holds it, cut to the
// part that it is.
type Stored struct {
	*checkpoint.Tensor
	scale *checkpoint.Tensor // the factors of int8 rows; nil: none
}

// int8Scale ends the name of the tensor that holds an int8 matrix's factors, one a
// row.
const int8Scale = "_scale"

// Int8Scale is the name of the tensor that holds an int8 matrix's factors, one a row.
func Int8Scale(name string) string { return name + int8Scale }

// Read reads the values, whatever they are stored in.
func (s *Stored) Read(dst []float32) error {
	if s.DType != checkpoint.I8 {
		return s.ReadFloat32(dst)
	}
	scale := make([]float32, s.Shape[0])
	if err := s.scale.ReadFloat32(scale); err != nil {
		return err
	}
	raw := make([]byte, len(dst))
	if err := s.Tensor.Read(raw); err != nil {
		return err
	}
	cols := len(dst) / len(scale)
	for i, q := range raw {
		dst[i] = scale[i/cols] * float32(int8(q))
	}
	return nil
}

// Values reads the values into new memory.
func (s *Stored) Values() ([]float32, error) {
	v := make([]float32, s.Elements())
	return v, s.Read(v)
}

// Names lists the tensors of the file that hold s.
func (s *Stored) Names() []string {
	if s.scale == nil {
		return []string{s.Name}
	}
	return []string{s.Name, s.scale.Name}
}

// Open reads a directory's configuration and finds each of its tensors; a head may
// be missing.
func Open(dir *checkpoint.Dir) (*Source, error) { return OpenAs(dir, LoadOptions{NewHead: true}) }

// OpenAs is Open for the model that Load makes with the same options.
func OpenAs(dir *checkpoint.Dir, opt LoadOptions) (*Source, error) {
	cfg, err := ReadConfig(dir)
	if err != nil {
		return nil, err
	}
	if err := cfg.TakeHead(opt.Adapter); err != nil {
		return nil, err
	}
	opt.apply(cfg)
	if err := checkHead(cfg); err != nil {
		return nil, err
	}
	s := &Source{Dir: dir, Config: cfg, seed: opt.Seed, Adapter: opt.Adapter}
	if s.Tensors, s.Blocks, err = Describe(cfg); err != nil {
		return nil, err
	}
	if err := s.bind(opt.NewHead); err != nil {
		return nil, err
	}
	for _, t := range s.Tensors {
		if opt.OtherClasses && t.Head && t.Shape[0] == len(cfg.Labels) && s.found[t.Name] != nil {
			delete(s.found, t.Name)
			s.New = append(s.New, t.Name)
		}
	}
	return s, nil
}

// Read reads a block's tensors, by their roles and as they are used.
func (s *Source) Read(b *Block) (map[string][]float32, error) {
	values := map[string][]float32{}
	for _, t := range b.Tensors() {
		src := s.Find(t.Name)
		v, err := src.Values()
		if err != nil {
			return nil, err
		}
		if t.Transposed {
			v = Transpose(v, t.Shape[0], t.Shape[1])
		}
		values[t.Role] = v
	}
	return values, nil
}

// Find returns a stated tensor; nil if it belongs to the head and the checkpoint
// lacks it.
func (s *Source) Find(name string) *Stored { return s.found[name] }

// FileName is the name that a stated tensor has among those of the checkpoint, which
// leaves the family's prefix out where that does.
func (s *Source) FileName(name string) string { return strings.TrimPrefix(name, s.extra) }

// bind finds the checkpoint tensor of each stated one. Those of the head may be
// missing where newHead allows it.
func (s *Source) bind(newHead bool) error {
	f, w := families[s.Config.Type], s.Dir.Weights
	s.found = map[string]*Stored{}
	var problems []string
	headless := 0 // of the problems, tensors of the head that are not there
	used := map[string]bool{}
	for _, t := range s.Tensors {
		place := t.Place
		src := lookup(w, f.prefix, t.file())
		for _, also := range t.others() {
			if src == nil {
				place, src = also, lookup(w, f.prefix, also.In)
			}
		}
		if src == nil {
			place = t.Place
		}
		var part *checkpoint.Tensor
		if src != nil {
			used[src.Name] = true
			part = place.cut(src, t.Shape)
		}
		if saved, ok := s.Adapter.Tensor(t.file()); ok { // trained whole
			if part = t.cut(saved, t.Shape); part == nil || !part.DType.IsFloat() {
				problems = append(problems, fmt.Sprintf("%s: expected a float tensor of shape %v in the adapter, found %s %v", t.file(), t.shape(t.Shape), saved.DType, saved.Shape))
				continue
			}
		}
		switch {
		case part != nil && part.DType == checkpoint.I8:
			scale, ok := w.Tensor(Int8Scale(src.Name))
			if ok {
				used[scale.Name] = true
				scale = place.cut(scale, t.Shape[:1])
			}
			if !ok || scale == nil || !scale.DType.IsFloat() {
				problems = append(problems, fmt.Sprintf("%s: expected a factor for each of the %d rows of the int8 matrix, found none", Int8Scale(src.Name), src.Shape[0]))
				break
			}
			s.found[t.Name] = &Stored{part, scale}
		case part != nil && !part.DType.IsFloat():
			problems = append(problems, fmt.Sprintf("%s: expected F64, F32, F16, BF16 or I8, found %s", src.Name, src.DType))
		case part != nil:
			s.found[t.Name] = &Stored{Tensor: part}
		case t.Head && newHead:
			s.New = append(s.New, t.Name)
		case src == nil:
			problems = append(problems, fmt.Sprintf("%s: expected shape %v, found no such tensor", t.file(), t.shape(t.Shape)))
			if t.Head {
				headless++
			}
		default:
			problems = append(problems, fmt.Sprintf("%s: expected shape %v, found %v", src.Name, place.shape(t.Shape), src.Shape))
		}
		if src != nil && strings.HasPrefix(t.file(), f.prefix) && src.Name == strings.TrimPrefix(t.file(), f.prefix) {
			s.extra = f.prefix
		}
	}
	for _, name := range w.Names() {
		within := func(part string) bool { return strings.Contains(name, part) }
		if used[name] || slices.ContainsFunc(f.buffers, within) {
			continue
		}
		if !slices.ContainsFunc(f.unused, within) && !s.Config.unusedLayer(name) {
			problems = append(problems, fmt.Sprintf("%s: expected no such tensor in a %s model", name, s.Dir.Config.Raw("model_type")))
			continue
		}
		s.Unused = append(s.Unused, name)
	}
	if headless > 0 && headless == len(problems) {
		return fmt.Errorf("%s: expected a model trained for a task, found one without a head (%s): train it first", s.Dir.Path, strings.Join(problems, "; "))
	}
	if len(problems) > 0 {
		const most = 8
		if n := len(problems); n > most {
			problems = append(problems[:most], fmt.Sprintf("and %d more", n-most))
		}
		return errors.New(s.Dir.Path + ": " + strings.Join(problems, "; "))
	}
	return nil
}

// unusedLayer tells whether a tensor belongs to a layer after the last.
func (a *Arch) unusedLayer(name string) bool {
	for i := range a.unusedLayers {
		if strings.HasPrefix(name, fmt.Sprintf(a.names.layer, a.Layers+i)+".") {
			return true
		}
	}
	return false
}

// lookup finds a tensor under its name, without the family's prefix as a base
// model saves it, or under LayerNorm's old names.
func lookup(w *checkpoint.Reader, prefix, name string) *checkpoint.Tensor {
	old := strings.NewReplacer("LayerNorm.weight", "LayerNorm.gamma", "LayerNorm.bias", "LayerNorm.beta")
	for _, n := range []string{name, strings.TrimPrefix(name, prefix)} {
		for _, n := range []string{n, old.Replace(n)} {
			if t, ok := w.Tensor(n); ok {
				return t
			}
		}
	}
	return nil
}

// file is the checkpoint's tensor that holds t.
func (t *Tensor) file() string {
	if t.In != "" {
		return t.In
	}
	return t.Name
}

// others are the places where t may lie besides its own.
func (t *Tensor) others() []Place {
	if t.Stack > 0 { // alone, as it lies where the stack is not whole
		return append(slices.Clone(t.Also), Place{In: t.Name, Transposed: t.Transposed})
	}
	return t.Also
}

// shape is that of the checkpoint's tensor which holds one of the given shape.
func (p *Place) shape(of []int) []int {
	shape := slices.Clone(of)
	shape[0] *= max(1, p.Parts)
	if p.Stack > 0 {
		shape[0] /= p.Stack
		shape = append([]int{p.Stack}, shape...)
	}
	return shape
}

// cut returns the part of a checkpoint's tensor that is the stated one, of the given
// shape; nil if the tensor has another shape than that asks for.
func (p *Place) cut(src *checkpoint.Tensor, shape []int) *checkpoint.Tensor {
	if !slices.Equal(src.Shape, p.shape(shape)) {
		return nil
	}
	if p.Parts == 0 {
		return src
	}
	matrix := *src
	matrix.Shape = append([]int{p.Parts * shape[0]}, shape[1:]...)
	return matrix.Rows(p.Part*shape[0], (p.Part+1)*shape[0])
}
