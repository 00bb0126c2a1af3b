package model

import (
	"errors"
	"fmt"
	"hash/fnv"
	"math"
	"math/rand/v2"
	"slices"
	"strings"

	"mlpfusion/checkpoint"
)

// LoadOptions are the choices of Load.
type LoadOptions struct {
	// Head is what the model must compute.
	Head Head
	// Labels are the class names the model must have, one for a regression; nil
	// takes those of the checkpoint.
	Labels []string
	// NewHead makes a task head anew, from Seed, where the checkpoint has none
	// or one of another shape; without it that is an error.
	NewHead bool
	// OtherClasses says that the checkpoint's classes are not those of Labels: with
	// NewHead the layer that has a row for each is made anew even if it fits.
	OtherClasses bool
	Seed         uint64
}

// Report tells what Load did besides reading tensors.
type Report struct {
	New    []string // tensors of the head that were made anew
	Unused []string // tensors of the checkpoint that classification does not use
}

// Load reads the model of a checkpoint directory. Every tensor must be there
// with its shape and none may be left over, save those that the family knows
// not to need; all that is wrong is named at once.
func Load(dir *checkpoint.Dir, opt LoadOptions) (*Model, *Report, error) {
	cfg, err := ReadConfig(dir)
	if err != nil {
		return nil, nil, err
	}
	opt.apply(cfg)
	m, err := New(cfg)
	if err != nil {
		return nil, nil, err
	}
	src, report, err := Bind(dir, m.Config, m.Tensors, opt.NewHead)
	if err != nil {
		return nil, nil, err
	}
	if opt.OtherClasses {
		for i, t := range m.Tensors {
			if t.Head && t.Shape[0] == len(cfg.Labels) && src[i] != nil {
				src[i] = nil
				report.New = append(report.New, t.Name)
			}
		}
	}
	for i, t := range m.Tensors {
		if err := m.Tensors[i].read(dir.Weights, src[i]); err != nil {
			return nil, nil, fmt.Errorf("%s: %w", dir.Path, err)
		}
		if src[i] == nil {
			t.initialise(opt.Seed, cfg)
		}
	}
	if err := settle(m.Blocks); err != nil {
		return nil, nil, fmt.Errorf("%s: %w", dir.Path, err)
	}
	return m, report, nil
}

// FromScratch makes the model of a configuration from nothing, its weights as
// transformers begins, from opt.Seed. A fused configuration is refused: fusing
// is done to trained weights.
func FromScratch(config *checkpoint.Config, opt LoadOptions) (*Model, error) {
	cfg, err := ParseConfig(config.Bytes())
	if err != nil {
		return nil, err
	}
	if cfg.T5 != nil {
		return nil, fmt.Errorf("config.json: model_type: expected a family that can begin from nothing, such as gpt2 or bert, found %s", cfg.Type)
	}
	if config.Has("mlpfusion") {
		return nil, errors.New("config.json: expected an original model, found one with fused layers (mlpfusion)")
	}
	opt.apply(cfg)
	m, err := New(cfg)
	if err != nil {
		return nil, err
	}
	for i := range m.Tensors {
		m.Tensors[i].initialise(opt.Seed, cfg)
	}
	return m, nil
}

// apply sets the head that is asked for.
func (opt *LoadOptions) apply(cfg *Config) {
	if opt.Head != AsSaved {
		cfg.Head = opt.Head
	}
	if opt.Labels != nil {
		cfg.Labels = opt.Labels
	}
}

// ReadConfig reads a directory's config.json for its family, with the forms of
// the MLPs that were fused.
func ReadConfig(dir *checkpoint.Dir) (*Config, error) {
	cfg, err := ParseConfig(dir.Config.Bytes())
	if err != nil {
		return nil, fmt.Errorf("%s: %w", dir.Path, err)
	}
	if cfg.T5 != nil {
		// transformers ties the head whatever config.json says, unless the file
		// has a matrix for it.
		cfg.Tied = lookup(dir.Weights, "", "lm_head.weight") == nil
	}
	fused, err := dir.Config.Fusion()
	if err != nil || fused == nil {
		return cfg, err
	}
	cfg.Blocks = map[string]BlockConfig{}
	for name, l := range fused.Layers {
		if l.Width > 1<<24 || l.Rank < 0 || l.Rank > 1<<24 {
			return nil, fmt.Errorf("%s: config.json: mlpfusion: layer %s: expected a width and rank below %d, found %d and %d", dir.Path, name, 1<<24, l.Width, l.Rank)
		}
		b := Block{Name: name}
		prefix := families[cfg.Type].prefix
		cfg.Blocks[name] = BlockConfig{
			Width: l.Width, Rank: l.Rank, Masked: l.Masked, Weights: l.Weights,
			Scale: lookup(dir.Weights, prefix, b.ScaleName()) != nil,
			Step:  lookup(dir.Weights, prefix, b.StepName()) != nil,
		}
	}
	_, blocks, err := Describe(cfg)
	if err != nil {
		return nil, err
	}
	for name, form := range cfg.Blocks {
		at := slices.IndexFunc(blocks, func(b *Block) bool { return b.Name == name })
		if at < 0 {
			return nil, fmt.Errorf("%s: config.json: mlpfusion: expected layers of this model such as %s, found %s", dir.Path, blocks[0].Name, name)
		}
		if form.Weights == "" {
			continue
		}
		o := Owner(blocks[:at], blocks[at])
		if o == nil || o.Form.Scale != form.Scale || o.Form.Rank+form.Rank > 0 || o.Form.Masked || form.Masked || o.Form.Step || form.Step {
			return nil, fmt.Errorf("%s: config.json: mlpfusion: layer %s: weights: expected a dense layer before it, with P as it has, found %s", dir.Path, name, form.Weights)
		}
	}
	return cfg, nil
}

// Bind finds the checkpoint tensor of each stated one. It returns nil for those
// of the head that are to be made anew, which newHead allows.
func Bind(dir *checkpoint.Dir, cfg *Config, stated []Tensor, newHead bool) ([]*checkpoint.Tensor, *Report, error) {
	f, err := familyOf(cfg.Type)
	if err != nil {
		return nil, nil, err
	}
	var problems []string
	headless := 0 // of the problems, tensors of the head that are not there
	report := &Report{}
	found := make([]*checkpoint.Tensor, len(stated))
	used := map[string]bool{}
	for i, t := range stated {
		src := lookup(dir.Weights, f.prefix, t.Name)
		if src != nil {
			used[src.Name] = true
		}
		fits := src != nil && slices.Equal(src.Shape, t.Shape)
		switch {
		case fits && src.DType == checkpoint.I8:
			scale, ok := dir.Weights.Tensor(src.Name + Int8Scale)
			if !ok || !scale.DType.IsFloat32() || !slices.Equal(scale.Shape, src.Shape[:1]) {
				problems = append(problems, fmt.Sprintf("%s: expected a factor for each of the %d rows of the int8 matrix, found none", src.Name+Int8Scale, src.Shape[0]))
				break
			}
			used[scale.Name] = true
			found[i] = src
		case fits && !src.DType.IsFloat32():
			problems = append(problems, fmt.Sprintf("%s: expected F32, F16, BF16 or I8, found %s", src.Name, src.DType))
		case fits:
			found[i] = src
		case t.Head && newHead:
			report.New = append(report.New, t.Name)
		case src == nil:
			problems = append(problems, fmt.Sprintf("%s: expected shape %v, found no such tensor", t.Name, t.Shape))
			if t.Head {
				headless++
			}
		default:
			problems = append(problems, fmt.Sprintf("%s: expected shape %v, found %v", src.Name, t.Shape, src.Shape))
		}
	}
	for _, name := range dir.Weights.Names() {
		if used[name] {
			continue
		}
		if !slices.ContainsFunc(f.unused, func(part string) bool { return strings.Contains(name, part) }) {
			problems = append(problems, fmt.Sprintf("%s: expected no such tensor in a %s model", name, dir.Config.Raw("model_type")))
			continue
		}
		report.Unused = append(report.Unused, name)
	}
	if headless > 0 && headless == len(problems) {
		return nil, nil, fmt.Errorf("%s: expected a model trained for a task, found one without a head (%s): train it first", dir.Path, strings.Join(problems, "; "))
	}
	if len(problems) > 0 {
		const most = 8
		if n := len(problems); n > most {
			problems = append(problems[:most], fmt.Sprintf("and %d more", n-most))
		}
		return nil, nil, errors.New(dir.Path + ": " + strings.Join(problems, "; "))
	}
	return found, report, nil
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

// Transpose returns the transpose of a matrix (rows × cols).
func Transpose(x []float32, rows, cols int) []float32 {
	y := make([]float32, len(x))
	const tile = 16
	for r0 := 0; r0 < rows; r0 += tile {
		for c0 := 0; c0 < cols; c0 += tile {
			for r := r0; r < min(rows, r0+tile); r++ {
				for c := c0; c < min(cols, c0+tile); c++ {
					y[c*rows+r] = x[r*cols+c]
				}
			}
		}
	}
	return y
}

// values is the memory of a tensor.
func (t *Tensor) values() []float32 {
	if t.Param != nil {
		return t.Param.Data
	}
	return t.Fixed
}

// Int8Scale ends the name of the tensor that holds an int8 matrix's factors, one
// a row.
const Int8Scale = "_scale"

// ReadValues reads a tensor that Bind found, whatever it is stored in.
func ReadValues(w *checkpoint.Reader, src *checkpoint.Tensor, dst []float32) error {
	if src.DType != checkpoint.I8 {
		return src.ReadFloat32(dst)
	}
	factors, _ := w.Tensor(src.Name + Int8Scale)
	scale := make([]float32, src.Shape[0])
	if err := factors.ReadFloat32(scale); err != nil {
		return err
	}
	cols := len(dst) / len(scale)
	for i, q := range src.Bytes() {
		dst[i] = scale[i/cols] * float32(int8(q))
	}
	return nil
}

func (t *Tensor) read(w *checkpoint.Reader, src *checkpoint.Tensor) error {
	if src == nil {
		return nil
	}
	if err := ReadValues(w, src, t.values()); err != nil {
		return err
	}
	if t.Transposed {
		copy(t.values(), Transpose(t.values(), t.Shape[0], t.Shape[1]))
	}
	for i, v := range t.values() {
		if v-v != 0 {
			return fmt.Errorf("%s: expected finite values, found %v at element %d", src.Name, v, i)
		}
	}
	return nil
}

// initialise fills a new tensor as transformers does, the same values for a seed
// whatever else is new.
func (t *Tensor) initialise(seed uint64, c *Config) {
	std := c.InitStd
	if t.Init == Residual {
		std /= float32(math.Sqrt(2 * float64(c.Layers)))
	}
	h := fnv.New64a()
	h.Write([]byte(t.Name))
	rng := rand.New(rand.NewPCG(seed, h.Sum64()))
	for i, data := 0, t.values(); i < len(data); i++ {
		switch t.Init {
		case Ones:
			data[i] = 1
		case Normal, Residual:
			data[i] = std * float32(rng.NormFloat64())
		}
	}
}
