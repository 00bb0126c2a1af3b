package model

import (
	"errors"
	"fmt"
	"hash/fnv"
	"math"
	"math/rand/v2"
	"slices"

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

	// Adapter gives the model low-rank paths, which alone, with the modules that it
	// saves, are then trained: those of its folder, or new ones.
	Adapter *checkpoint.Adapter
	// Merge has Adapter's paths added to the matrices instead.
	Merge bool
	// Base says how matrices are kept that are not trained, so all but an adapter's.
	Base Base
}

// Load reads the model of a checkpoint directory. Every tensor must be there
// with its shape and none may be left over, save those that the family knows
// not to need; all that is wrong is named at once.
func Load(dir *checkpoint.Dir, opt LoadOptions) (*Model, *Report, error) {
	src, err := OpenAs(dir, opt)
	if err != nil {
		return nil, nil, err
	}
	m, err := src.load(nil)
	return m, &src.Report, err
}

// load makes the model, or the part of it that one layer reads, and reads its tensors.
func (s *Source) load(part *int) (*Model, error) {
	m := build(&builder{cfg: s.Config, alloc: true, part: part})
	for i := range m.Tensors {
		t := &m.Tensors[i]
		if !t.laid() {
			continue // of another part
		}
		if from := s.Find(t.Name); from == nil {
			t.initialise(s.seed, s.Config)
		} else if err := t.read(from); err != nil {
			return nil, fmt.Errorf("%s: %w", s.Dir.Path, err)
		}
	}
	if err := setUnitNorms(m.Blocks); err != nil {
		return nil, fmt.Errorf("%s: %w", s.Dir.Path, err)
	}
	switch {
	case s.Adapter == nil:
		return m, nil
	case s.Config.Adapter == nil:
		return m, s.merge(m)
	}
	return m, m.fillPaths(s.seed)
}

// FromScratch makes the model of a configuration from nothing, its weights as
// transformers begins, from opt.Seed. A fused configuration is refused: fusing
// is done to trained weights.
func FromScratch(config *checkpoint.Config, opt LoadOptions) (*Model, error) {
	cfg, err := ParseConfig(config.Bytes())
	if err != nil {
		return nil, err
	}
	if cfg.TwoStacks() {
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
	cfg.Base = opt.Base
	if !opt.Merge {
		cfg.Adapter = opt.Adapter
	}
}

// ReadConfig reads a directory's config.json for its family, with the forms of
// the MLPs that were fused.
func ReadConfig(dir *checkpoint.Dir) (*Config, error) {
	cfg, err := ParseConfig(dir.Config.Bytes())
	if err != nil {
		return nil, fmt.Errorf("%s: %w", dir.Path, err)
	}
	if head := lookup(dir.Weights, "", cfg.names.head+".weight"); cfg.TwoStacks() {
		// transformers ties the head whatever config.json says, unless the file
		// has a matrix for it.
		cfg.Tied = head == nil
	} else if cfg.Tied && head != nil {
		words := lookup(dir.Weights, families[cfg.Type].prefix, cfg.names.words+".weight")
		if words != nil {
			if cfg.Tied, err = head.SameBytes(words); err != nil {
				return nil, err
			}
		}
		if !cfg.Tied {
			cfg.Notes = append(cfg.Notes, fmt.Sprintf("%s differs from %s: both are used, though config.json's tie_word_embeddings is true", head.Name, words.Name))
		}
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
			Width: l.Width, Rank: l.Rank, Masked: l.Masked, Weights: l.Weights, Apart: fused.Scale != checkpoint.ScaleFold,
			ClusterSizes: lookup(dir.Weights, prefix, b.ClusterSizesName()) != nil,
			StepSizes:    lookup(dir.Weights, prefix, b.StepSizesName()) != nil,
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
		if o == nil || o.Form.ClusterSizes != form.ClusterSizes || o.Form.Rank+form.Rank > 0 || o.Form.Masked || form.Masked || o.Form.StepSizes || form.StepSizes {
			return nil, fmt.Errorf("%s: config.json: mlpfusion: layer %s: weights: expected a dense layer before it, with P as it has, found %s", dir.Path, name, form.Weights)
		}
	}
	return cfg, nil
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

// laid tells whether the tensor has memory.
func (t *Tensor) laid() bool { return t.values() != nil || t.narrow() }

// narrow tells whether the memory is not float32's.
func (t *Tensor) narrow() bool { return t.Param != nil && t.Param.Data == nil && t.Param.Len() > 0 }

// read fills a tensor in from a checkpoint.
func (t *Tensor) read(from *Stored) error {
	if t.narrow() {
		return t.readNarrow(from)
	}
	if err := from.Read(t.values()); err != nil {
		return err
	}
	if t.Transposed {
		copy(t.values(), Transpose(t.values(), t.Shape[0], t.Shape[1]))
	}
	return finite(from.Name, t.values(), 0)
}

// finite refuses values that are infinite or no numbers, of which the first is element
// number first.
func finite(name string, values []float32, first int) error {
	for i, v := range values {
		if v-v != 0 {
			return fmt.Errorf("%s: expected finite values, found %v at element %d", name, v, first+i)
		}
	}
	return nil
}

// readNarrow is read for a matrix kept in bfloat16 or as whole numbers, some rows at a time
// where it can be.
func (t *Tensor) readNarrow(from *Stored) error {
	set := func(values []float32, row int) error {
		if err := finite(from.Name, values, row*t.Param.Cols); err != nil {
			return err
		}
		t.Param.SetRows(row, values)
		return nil
	}
	if t.Transposed || from.scale != nil {
		values, err := from.Values()
		if err == nil && t.Transposed {
			values = Transpose(values, t.Shape[0], t.Shape[1])
		}
		if err != nil {
			return err
		}
		return set(values, 0)
	}
	const some = 1 << 20 // elements
	rows, cols := t.Shape[0], t.Shape[1]
	step := max(1, some/cols)
	values := make([]float32, min(rows, step)*cols)
	for i := 0; i < rows; i += step {
		n := min(step, rows-i)
		if err := from.Rows(i, i+n).ReadFloat32(values[:n*cols]); err != nil {
			return err
		}
		if err := set(values[:n*cols], i); err != nil {
			return err
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
		case Uniform:
			data[i] = float32((2*rng.Float64() - 1) / math.Sqrt(float64(t.Shape[1])))
		}
	}
}
