package model

import (
	"fmt"
	"slices"
	"strings"

	"mlpfusion/checkpoint"
	"mlpfusion/kernel"
	"mlpfusion/nn"
)

// paths are the low-rank paths of a model being built.
type paths struct {
	tensors []Tensor
	of      map[string]*path
}

// path is a module's.
type path struct {
	a, b  *nn.Weight
	parts []*nn.Weight // of b, where several layers make up the module
}

// Module is the name of the layer, table or norm that a tensor belongs to; of an expert
// whose matrices lie in a stack, its own.
func (t *Tensor) Module() string {
	name := t.file()
	if t.Stack > 0 {
		name = t.Name
	}
	return name[:max(0, strings.LastIndexByte(name, '.'))]
}

// matrix is the shape (outputs × inputs) of a layer's matrix as it is used.
func (t *Tensor) matrix() []int {
	if t.Transposed {
		return []int{t.Shape[1], t.Shape[0]}
	}
	return t.Shape
}

// outputs says which outputs of its module a layer's matrix makes: n from first on,
// of all.
func (t *Tensor) outputs() (first, out, all int) {
	out = t.matrix()[0]
	if t.Stack > 0 {
		return 0, out, out
	}
	return t.Part * out, out, max(1, t.Parts) * out
}

// trains tells whether the memory of modules that lie in one weight is trained.
func (b *builder) trains(modules ...string) bool {
	c := b.cfg
	if c.Adapter == nil {
		return c.Base == BaseFP32
	}
	return !slices.ContainsFunc(modules, func(m string) bool { return !c.Adapter.Saves(m) })
}

// adapt gives a layer the low-rank path of its module, if that has one. The outputs
// [from, from+out) of the layer are those of the module from first on, of all.
func (b *builder) adapt(l *nn.Linear, module string, from, first, out, all int) {
	c := b.cfg.Adapter
	if c == nil || !c.Adapts(module) {
		return
	}
	rank, scale := c.Of(module)
	p := b.paths.of[module]
	if p == nil {
		p = &path{}
		if b.paths.of == nil {
			b.paths.of = map[string]*path{}
		}
		b.paths.of[module] = p
		nameA, nameB := checkpoint.AdapterTensors(module)
		state := func(name string, rows, cols int, init Init) *nn.Weight {
			w := b.weight(rows, cols, true, false)
			b.paths.tensors = append(b.paths.tensors, b.laid(Tensor{Name: name, Shape: []int{rows, cols}, Init: init}, w, 0, rows*cols, cols))
			return w
		}
		p.a, p.b = state(nameA, rank, l.W.Cols, Uniform), state(nameB, all, rank, Nothing)
	}
	if !b.alloc {
		return
	}
	side := &nn.LowRank{A: p.a, B: p.b, From: from, Scale: float32(scale), Drop: float32(c.Dropout)}
	if out < all {
		side.B = p.b.View(first, first+out)
		p.parts = append(p.parts, side.B)
		if first+out == all {
			b.replace(p.b, p.parts...)
		}
	}
	l.Sides = append(l.Sides, side)
}

// AdapterOptions are the choices of NewAdapter.
type AdapterOptions struct {
	Rank    int     `json:"rank"`
	Alpha   float64 `json:"alpha"`
	Dropout float64 `json:"dropout,omitempty"`
	RSLoRA  bool    `json:"rslora,omitempty"`
	// Targets are "all", "attention", "mlp", or what the names of layers end with.
	Targets []string `json:"targets"`
}

// NewAdapter describes a new adapter for the model that Load makes with the options, of
// the name base: of a head for labels all is trained, of everything else the paths alone.
func NewAdapter(dir *checkpoint.Dir, load LoadOptions, base string, opt AdapterOptions) (*checkpoint.Adapter, error) {
	c, err := ReadConfig(dir)
	if err != nil {
		return nil, err
	}
	load.apply(c)
	tensors, blocks, err := Describe(c)
	if err != nil {
		return nil, err
	}
	a := &checkpoint.Adapter{Base: base, Rank: opt.Rank, Alpha: opt.Alpha, Dropout: opt.Dropout, RSLoRA: opt.RSLoRA,
		Transposed: c.names.transposed, Task: "SEQ_CLS", Save: []string{}}
	if c.Head == LanguageModel {
		a.Task = map[bool]string{false: "CAUSAL_LM", true: "SEQ_2_SEQ_LM"}[c.TwoStacks()]
	}
	routers := map[string]bool{}
	for _, b := range blocks {
		routers[b.Router] = true
	}
	prefix := families[c.Type].prefix
	var layers, chosen, others []string // modules
	found := map[string]bool{}
	for i := range tensors {
		t := &tensors[i]
		module := t.Module()
		if t.Head && c.Head != LanguageModel {
			top, _, _ := strings.Cut(strings.TrimPrefix(module, prefix), ".")
			if !slices.Contains(a.Save, top) {
				a.Save = append(a.Save, top)
			}
		}
		if !t.Layer || slices.Contains(layers, module) {
			continue
		}
		layers = append(layers, module)
		targeted := false
		for _, name := range opt.Targets {
			switch {
			case t.Head || routers[t.Name]:
			case name == "all", name == "mlp" && t.Block != nil, name == "attention" && t.Block == nil, module == name, strings.HasSuffix(module, "."+name):
				targeted, found[name] = true, true
			}
		}
		if targeted {
			chosen = append(chosen, module)
		} else {
			others = append(others, module)
		}
	}
	for _, name := range opt.Targets {
		if !found[name] {
			return nil, fmt.Errorf("expected all, attention, mlp or what names of layers end with, such as %s, found %q", lastName(layers[0]), name)
		}
	}
	a.Targets = endings(chosen, others)
	return a, nil
}

func lastName(module string) string { return module[strings.LastIndexByte(module, '.')+1:] }

// endings returns the shortest ends of the chosen modules' names that are not ends of the
// others'.
func endings(chosen, others []string) (ends []string) {
	for _, module := range chosen {
		end := lastName(module)
		for end != module && slices.ContainsFunc(others, func(o string) bool { return o == end || strings.HasSuffix(o, "."+end) }) {
			rest := strings.TrimSuffix(module, "."+end)
			end = module[strings.LastIndexByte(rest, '.')+1:]
		}
		if !slices.Contains(ends, end) {
			ends = append(ends, end)
		}
	}
	return ends
}

// TakeHead has the model compute what it did when an adapter was trained, if the adapter's
// folder says what that was.
func (c *Config) TakeHead(a *checkpoint.Adapter) error {
	if a == nil || a.Config == nil {
		return nil
	}
	trained, err := ParseConfig(a.Config.Bytes())
	if err != nil {
		return fmt.Errorf("%s: %w", a.Path, err)
	}
	c.Head, c.Labels = trained.Head, trained.Labels
	return nil
}

// fillPaths reads the paths of an adapter, or begins new ones, and refuses an adapter of
// another model.
func (m *Model) fillPaths(seed uint64) error {
	a := m.Config.Adapter
	if err := checkPaths(a, m.paths, m.Tensors); err != nil {
		return err
	}
	for i := range m.paths {
		t := &m.paths[i]
		from, ok := a.Tensor(t.Name)
		if !t.laid() {
			continue // of another part
		}
		if !ok {
			t.initialise(seed, m.Config)
			continue
		}
		if err := t.read(&Stored{Tensor: from}); err != nil {
			return fmt.Errorf("%s: %w", a.Path, err)
		}
	}
	return nil
}

// checkPaths refuses an adapter that was made for another model than the one of these
// tensors and paths.
func checkPaths(a *checkpoint.Adapter, paths, tensors []Tensor) error {
	if a.Weights == nil {
		return nil
	}
	another := func(format string, args ...any) error {
		of := ""
		if a.Base != "" {
			of = fmt.Sprintf(" (it was made for %s)", a.Base)
		}
		return fmt.Errorf("%s: expected an adapter of this model%s: %s", a.Path, of, fmt.Sprintf(format, args...))
	}
	known := map[string]bool{}
	for i := range paths {
		t := &paths[i]
		known[t.Name] = true
		from, ok := a.Tensor(t.Name)
		switch {
		case !ok:
			return another("%s: expected shape %v, found no such tensor", t.Name, t.Shape)
		case !slices.Equal(from.Shape, t.Shape):
			return another("%s: expected shape %v, found %v", t.Name, t.Shape, from.Shape)
		case !from.DType.IsFloat():
			return another("%s: expected numbers with a fraction, found %s", t.Name, from.DType)
		}
	}
	for i := range tensors {
		known[tensors[i].file()] = true
	}
	for _, name := range a.Names() {
		if !known[name] {
			return another("%s: found in the adapter and no layer of that name that can be adapted in the model", name)
		}
	}
	return nil
}

// Adapted tells which matrices the adapter that the source is opened with adds to, and
// refuses one of another model.
func (s *Source) Adapted() (func(t *Tensor) bool, error) {
	c := *s.Config
	c.Adapter = s.Adapter
	b := &builder{cfg: &c}
	b.network()
	return func(t *Tensor) bool { return t.Layer && b.paths.of[t.Module()] != nil }, checkPaths(s.Adapter, b.paths.tensors, s.Tensors)
}

// merge adds the adapter's paths to the matrices: W + scale·B·A.
func (s *Source) merge(m *Model) error {
	adapted, err := s.Adapted()
	if err != nil {
		return err
	}
	pool := kernel.NewPool(1)
	defer pool.Close()
	for i := range m.Tensors {
		t := &m.Tensors[i]
		if !t.laid() || !adapted(t) {
			continue
		}
		values := t.Param.Values()
		if err := AddPath(pool, s.Adapter, t, values); err != nil {
			return err
		}
		if t.narrow() {
			t.Param.SetRows(0, values)
		}
	}
	return nil
}

// AddPath adds what an adapter adds to a layer's matrix (outputs × inputs), as it is used.
func AddPath(pool *kernel.Pool, adapter *checkpoint.Adapter, t *Tensor, values []float32) error {
	module, inputs := t.Module(), t.matrix()[1]
	rank, scale := adapter.Of(module)
	nameA, nameB := checkpoint.AdapterTensors(module)
	read := func(name string, rows, from, to int) ([]float32, error) {
		stored, _ := adapter.Tensor(name)
		v := make([]float32, (to-from)*stored.Elements()/rows)
		if err := stored.Rows(from, to).ReadFloat32(v); err != nil {
			return nil, err
		}
		return v, finite(adapter.Path+": "+name, v, 0)
	}
	a, err := read(nameA, rank, 0, rank)
	if err != nil {
		return err
	}
	first, out, all := t.outputs()
	b, err := read(nameB, all, first, first+out)
	if err != nil {
		return err
	}
	pool.Gemm(kernel.FP32, out, inputs, rank, kernel.Mat{Data: b, Stride: rank}, kernel.Mat{Data: a, Stride: inputs}, values, inputs,
		kernel.Epilogue{Alpha: float32(scale), Accumulate: true})
	return nil
}

// SaveAdapter writes the adapter and the modules trained with it, as PEFT does, and the
// configuration of source with this model's head.
func (m *Model) SaveAdapter(out *checkpoint.Output, source *checkpoint.Config) error {
	cfg := source.Clone()
	if err := m.describeHead(cfg); err != nil {
		return err
	}
	if raw := source.Raw("dtype"); raw != nil { // that of the base
		if err := cfg.Set("dtype", raw); err != nil {
			return err
		}
	}
	var specs []checkpoint.Spec
	values := map[string]func() []float32{}
	for i := range m.paths {
		t := &m.paths[i]
		specs = append(specs, checkpoint.Spec{Name: t.Name, DType: checkpoint.F32, Shape: t.Shape})
		values[t.Name] = t.values
	}
	for _, f := range FileTensors(m.Tensors) {
		if t := &m.Tensors[f.Parts[0]]; t.Param == nil || t.Param.Weight.Frozen {
			continue
		}
		specs = append(specs, checkpoint.Spec{Name: f.Name, DType: checkpoint.F32, Shape: f.Shape})
		values[f.Name] = func() []float32 { return f.Values(func(i int) []float32 { return m.Tensors[i].values() }) }
	}
	if err := m.Config.Adapter.Write(out, specs, func(name string) []float32 { return values[name]() }); err != nil {
		return err
	}
	return out.WriteConfig(cfg)
}
