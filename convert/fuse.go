package convert

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"slices"
	"strings"
	"sync"

	"mlpfusion/checkpoint"
	"mlpfusion/fusion"
	"mlpfusion/kernel"
	"mlpfusion/model"
)

// FuseOptions are the choices of Fuse.
type FuseOptions struct {
	Plan
	Method  string // a name of package fusion
	Experts int    // that merging leaves of each mixture; 0: a quarter
	Fusion  fusion.Options
	Threads int // 0: all
	// Calibration gives a block's inputs to the methods that use them; nil
	// when there are none. Blocks are then compressed in order of depth.
	Calibration     Calibration
	CalibrationName string // of the texts, for the record
	// Resume goes on from the blocks that an interrupted run has finished.
	Resume    bool
	Overwrite bool
	// Store is how the blocks' matrices are kept: f32, bf16 or int8; "" as the
	// checkpoint keeps those they replace.
	Store string
	// Budget, when not 0, is the share of the chosen blocks' cost to spend;
	// each block's width then follows from its own error curve.
	Budget   float64
	BudgetOf fusion.Cost
	// Usage is what the routers do with texts of the task: the budget then goes
	// to experts by the tokens they see. Without it they count alike.
	Usage []RouterUse
	Name  string // of the source, for the record
	// Progress is told when a block begins and ends; may be nil.
	Progress func(Step)
}

// Calibration is a source of block inputs.
type Calibration interface {
	// Inputs returns the inputs of a block by its place, with the blocks
	// before it as Replace left them.
	Inputs(block int) (fusion.Inputs, error)
	// Rewind goes back to the first block.
	Rewind()
	// Replace puts the compressed block in its place.
	Replace(block int, b *fusion.Block) error
}

// Step is a block's turn in Fuse.
type Step struct {
	Block       string
	Index, Of   int // of the chosen blocks
	Done        bool
	Kept        bool // taken from the interrupted run
	Width, From int
	Info        checkpoint.Layer // when Done
}

// Fused is what Fuse made.
type Fused struct {
	Layers      map[string]checkpoint.Layer `json:"layers"`
	SourceBytes int64                       `json:"source_bytes"` // of the weight files
	Bytes       int64                       `json:"bytes"`
}

// WorkSuffix ends the name of the folder beside an output that keeps the finished
// blocks of an interrupted run.
const WorkSuffix = ".fuse"

// Fuse compresses MLP blocks of the model in src and writes the result to the
// directory out. All else is copied as it is.
func Fuse(ctx context.Context, src *checkpoint.Dir, out string, opt FuseOptions) (*Fused, error) {
	f := &fuser{src: src, opt: opt, work: filepath.Clean(out) + WorkSuffix}
	if err := f.prepare(); err != nil {
		return nil, err
	}
	// Claim the place first: better to fail now than after the clustering.
	o, err := checkpoint.CreateOutput(out, opt.Overwrite)
	if err != nil {
		return nil, err
	}
	defer o.Abort()
	if err := os.MkdirAll(f.work, 0o777); err != nil {
		return nil, err
	}
	defer func() { _ = os.Remove(f.work) }() // unless it holds finished blocks
	if opt.Budget != 0 {
		if err := f.allocate(ctx); err != nil {
			return nil, err
		}
	}
	if err := f.compressAll(ctx); err != nil {
		return nil, err
	}
	if err := f.write(ctx, o); err != nil {
		return nil, err
	}
	if err := o.Commit(); err != nil {
		return nil, err
	}
	result := &Fused{Layers: f.layers, SourceBytes: weightBytes(src.Path), Bytes: weightBytes(out)}
	return result, os.RemoveAll(f.work)
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

type fuser struct {
	src    *checkpoint.Dir
	opt    FuseOptions
	method fusion.Method // nil where mixture is set
	// mixture compresses all experts of a layer together.
	mixture fusion.MixtureMethod
	work    string // folder of finished blocks
	cfg     *model.Config
	stated  []model.Tensor
	found   []*checkpoint.Tensor // of stated; nil: the head lacks it
	blocks  []*model.Block
	widths  map[int]int
	chosen  []int // places of the blocks to compress
	layers  map[string]checkpoint.Layer
	mu      sync.Mutex
}

func (f *fuser) prepare() (err error) {
	if err := f.lookup(); err != nil {
		return err
	}
	switch f.opt.Store {
	case "", "f32", "bf16", "int8":
	default:
		return fmt.Errorf("store: expected f32, bf16 or int8, found %q", f.opt.Store)
	}
	if f.cfg, err = model.ReadConfig(f.src); err != nil {
		return err
	}
	if f.stated, f.blocks, err = model.Describe(f.cfg); err != nil {
		return err
	}
	if f.found, _, err = model.Bind(f.src, f.cfg, f.stated, true); err != nil {
		return err
	}
	if f.widths, err = f.opt.Choose(f.blocks); err != nil {
		return err
	}
	f.layers = map[string]checkpoint.Layer{}
	if earlier, err := f.src.Config.Fusion(); err != nil {
		return err
	} else if earlier != nil {
		maps.Copy(f.layers, earlier.Layers) // blocks compressed before stay as they are
	}
	for i, b := range f.blocks {
		if _, ok := f.widths[i]; ok && (f.mixture == nil || b.Router != "") {
			f.chosen = append(f.chosen, i)
		}
	}
	if len(f.chosen) == 0 {
		return fmt.Errorf("%s: method %s: expected mixtures of experts in the chosen layers, found none", f.src.Path, f.opt.Method)
	}
	_, err = os.Stat(f.work)
	if err == nil && !f.opt.Resume {
		return fmt.Errorf("%s: expected no interrupted run, found its finished blocks: give --resume to go on with them or remove the folder", f.work)
	}
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

// compressAll compresses the chosen blocks, several at once where memory allows.
func (f *fuser) compressAll(ctx context.Context) error {
	threads := f.opt.Threads
	if threads <= 0 {
		threads = runtime.GOMAXPROCS(0)
	}
	groups := f.groups()
	at := 1
	if f.opt.Calibration == nil {
		at = min(threads, f.together(groups), len(groups))
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	next := make(chan []int, len(groups))
	for _, g := range groups {
		next <- g
	}
	close(next)
	var wg sync.WaitGroup
	for range max(1, at) {
		wg.Go(func() {
			pool := kernel.NewPool(max(1, threads/max(1, at)))
			defer pool.Close()
			for group := range next {
				if ctx.Err() != nil {
					return
				}
				if err := f.compress(ctx, pool, group); err != nil {
					cancel(err)
					return
				}
			}
		})
	}
	wg.Wait()
	return context.Cause(ctx)
}

// together is how many groups of blocks fit into memory at once: the largest
// one's matrix three times over plus what a small process may use anyway.
func (f *fuser) together(groups [][]int) int {
	const slack = 100 << 20
	largest := 1
	for _, g := range groups {
		size := 0
		for _, i := range g {
			b := f.blocks[i]
			size += 4 * b.Width * (len(b.Matrices())*b.Hidden + 1)
		}
		largest = max(largest, size)
	}
	return 1 + slack/(3*largest)
}

// finished is a compressed block.
type finished struct {
	info  checkpoint.Layer
	block *fusion.Block
}

// compress makes a group's blocks, or takes them from the interrupted run.
func (f *fuser) compress(ctx context.Context, pool *kernel.Pool, group []int) error {
	step := func(place int) Step {
		b := f.blocks[place]
		return Step{Block: b.Name, Index: slices.Index(f.chosen, place), Of: len(f.chosen), Width: f.widths[place], From: b.Width}
	}
	for _, place := range group {
		f.report(step(place))
	}
	all, err := f.loadAll(group)
	kept := err == nil
	if errors.Is(err, fs.ErrNotExist) {
		if f.mixture != nil {
			all, err = f.makeMixture(ctx, pool, group)
		} else {
			all, err = f.make(ctx, pool, group[0])
		}
		for i := 0; err == nil && i < len(all); i++ {
			err = f.save(group[i], all[i])
		}
	}
	if err != nil {
		return err
	}
	for i, place := range group {
		if f.opt.Calibration != nil {
			if err := f.opt.Calibration.Replace(place, all[i].block); err != nil {
				return err
			}
		}
		f.mu.Lock()
		f.layers[f.blocks[place].Name] = all[i].info
		f.mu.Unlock()
		s := step(place)
		s.Done, s.Kept, s.Info = true, kept, all[i].info
		f.report(s)
	}
	debug.FreeOSMemory() // the next block starts from a small process
	return nil
}

// loadAll reads a group's blocks; the error is fs.ErrNotExist when one is not
// there.
func (f *fuser) loadAll(group []int) ([]finished, error) {
	all := make([]finished, len(group))
	for i, place := range group {
		var err error
		if all[i].info, all[i].block, err = f.load(f.path(place), f.blocks[place]); err != nil {
			return nil, err
		}
		for j, owner := range group[:i] {
			if f.blocks[owner].Name == all[i].info.Weights {
				from := all[j].block
				all[i].block.Gate, all[i].block.Up, all[i].block.Down = from.Gate, from.Up, from.Down
			}
		}
	}
	return all, nil
}

func (f *fuser) report(s Step) {
	if f.opt.Progress != nil {
		f.mu.Lock()
		defer f.mu.Unlock()
		f.opt.Progress(s)
	}
}

func (f *fuser) path(place int) string {
	return filepath.Join(f.work, fmt.Sprintf("block-%04d.safetensors", place))
}

// read reads a block's weights.
func (f *fuser) read(place int) (*fusion.MLP, error) {
	b := f.blocks[place]
	m := &fusion.MLP{Hidden: b.Hidden, Width: b.Width, Act: b.Act}
	for _, t := range []struct {
		name         string
		matrix, bias *[]float32
	}{{b.Gate, &m.Gate, &m.GateBias}, {b.Up, &m.Up, &m.UpBias}, {b.Down, &m.Down, &m.DownBias}} {
		if t.name == "" {
			continue
		}
		var err error
		if *t.matrix, err = f.values(t.name + ".weight"); err == nil && b.Bias {
			*t.bias, err = f.values(t.name + ".bias")
		}
		if err != nil {
			return nil, err
		}
		if shape := f.tensor(t.name + ".weight").Shape; b.Transposed {
			*t.matrix = model.Transpose(*t.matrix, shape[0], shape[1])
		}
	}
	return m, nil
}

// values reads a block's tensor.
func (f *fuser) values(name string) ([]float32, error) {
	src := f.tensor(name)
	v := make([]float32, src.Elements())
	if err := src.ReadFloat32(v); err != nil {
		return nil, fmt.Errorf("%s: %w", f.src.Path, err)
	}
	return v, nil
}

// make reads a block's weights and compresses them.
func (f *fuser) make(ctx context.Context, pool *kernel.Pool, place int) ([]finished, error) {
	b := f.blocks[place]
	m, err := f.read(place)
	if err != nil {
		return nil, err
	}
	opt := f.opt.Fusion
	opt.Width, opt.Pool, opt.Spend = f.widths[place], pool, true
	if f.opt.Calibration != nil {
		if opt.Inputs, err = f.opt.Calibration.Inputs(place); err != nil {
			return nil, err
		}
	}
	method := f.method
	block, err := method.Compress(ctx, m, opt)
	if errors.Is(err, fusion.ErrNoTokens) && b.Router != "" {
		// An expert that no text of the task comes to is compressed without texts.
		if method.Name() == "calibrated" {
			method, _ = fusion.Lookup("fusion")
		}
		opt.Inputs, opt.Weighted, opt.Select, opt.Refit, opt.Fit = nil, false, false, false, 0
		block, err = method.Compress(ctx, m, opt)
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %s: %w", f.src.Path, b.Name, err)
	}
	info := f.info(b, block)
	info.Method = method.Name()
	return []finished{{info, block}}, nil
}

// info is what config.json says of a compressed block.
func (f *fuser) info(b *model.Block, block *fusion.Block) checkpoint.Layer {
	info := checkpoint.Layer{Width: block.Width, Original: b.Width, Inertia: block.Inertia, Total: block.InputInertia, Silhouette: block.Silhouette, Method: f.opt.Method, Masked: block.Masked}
	if block.Factors != nil {
		info.Rank = block.Factors.Rank
	}
	return info
}

// tensor returns a block's tensor, which Bind has found.
func (f *fuser) tensor(name string) *checkpoint.Tensor {
	i := slices.IndexFunc(f.stated, func(t model.Tensor) bool { return t.Name == name })
	return f.found[i]
}

// recipe says how a finished block was made, so that a resumed run does not mix
// recipes.
func (f *fuser) recipe(b *model.Block) string {
	o := f.opt.Fusion
	i := slices.Index(f.blocks, b)
	return fmt.Sprintf("%s %s width=%d seed=%d clustering=%s restarts=%d effort=%d weighted=%t select=%t refit=%t ridge=%g fit=%d balance=%t calibration=%s experts=%d",
		f.opt.Method, b.Name, f.widths[i], o.Seed, o.Clustering, o.Restarts, o.Effort, o.Weighted, o.Select, o.Refit, o.Ridge, o.Fit, o.Balance, f.opt.CalibrationName, f.opt.Experts)
}

// parts lists a block's own tensors under the names of a family, with the shapes
// they are stored in.
func parts(b *model.Block, block *fusion.Block) []part {
	p, c := b.Hidden, block.Width
	var list []part
	matrix := func(name string, out, in int, w, u, v, bias []float32) {
		if w == nil && u == nil {
			return // no gate, or another block's
		}
		if f := block.Factors; f != nil {
			list = append(list, part{name + ".factor_v", []int{f.Rank, in}, v}, part{name + ".factor_u", []int{out, f.Rank}, u})
		} else {
			list = append(list, matrixPart(b, name, out, in, w))
		}
		if bias != nil {
			list = append(list, part{name + ".bias", []int{out}, bias})
		}
	}
	f := block.Factors
	if f == nil {
		f = &fusion.Factors{}
	}
	matrix(b.Gate, c, p, block.Gate, f.GateU, f.GateV, block.GateBias)
	matrix(b.Up, c, p, block.Up, f.UpU, f.UpV, block.UpBias)
	matrix(b.Down, p, c, block.Down, f.DownU, f.DownV, block.DownBias)
	if block.Scale != nil {
		list = append(list, part{b.ScaleName(), []int{c}, block.Scale})
	}
	if block.Step != nil {
		list = append(list, part{b.StepName(), []int{c}, block.Step})
	}
	return list
}

type part struct {
	name   string
	shape  []int
	values []float32
}

// matrixPart is a block's matrix w (out × in), or nil for its shape alone, as the
// checkpoint lays it out.
func matrixPart(b *model.Block, name string, out, in int, w []float32) part {
	p := part{name + ".weight", []int{out, in}, w}
	if b.Transposed {
		p.shape = []int{in, out}
		if w != nil {
			p.values = model.Transpose(w, out, in)
		}
	}
	return p
}

// blockState is what a finished block's file says besides its tensors.
type blockState struct {
	Recipe string           `json:"recipe"`
	Info   checkpoint.Layer `json:"info"`
}

// save keeps a finished block for a resumed run: what is its own.
func (f *fuser) save(place int, done finished) error {
	block := *done.block
	if done.info.Weights != "" {
		block.Gate, block.Up, block.Down = nil, nil, nil
	}
	var sections []checkpoint.Section
	for name, v := range blockValues(&block) {
		if *v != nil {
			sections = append(sections, checkpoint.Section{Name: name, Float32: *v})
		}
	}
	slices.SortFunc(sections, func(a, b checkpoint.Section) int { return strings.Compare(a.Name, b.Name) })
	return checkpoint.SaveSnapshot(f.path(place), blockState{f.recipe(f.blocks[place]), done.info}, sections)
}

// blockValues names all the slices a block may hold.
func blockValues(b *fusion.Block) map[string]*[]float32 {
	v := map[string]*[]float32{
		"gate": &b.Gate, "gate.bias": &b.GateBias, "up": &b.Up, "up.bias": &b.UpBias, "down": &b.Down, "down.bias": &b.DownBias,
		"scale": &b.Scale, "step": &b.Step,
	}
	if f := b.Factors; f != nil {
		v["gate.u"], v["gate.v"] = &f.GateU, &f.GateV
		v["up.u"], v["up.v"], v["down.u"], v["down.v"] = &f.UpU, &f.UpV, &f.DownU, &f.DownV
	}
	return v
}

// load reads a finished block; the error is fs.ErrNotExist when there is none.
func (f *fuser) load(path string, b *model.Block) (info checkpoint.Layer, _ *fusion.Block, err error) {
	if _, err := os.Stat(path); err != nil {
		return info, nil, err
	}
	var s blockState
	r, err := checkpoint.LoadSnapshot(path, &s)
	if err != nil {
		return info, nil, err
	}
	defer r.Close()
	if want := f.recipe(b); s.Recipe != want {
		return info, nil, fmt.Errorf("%s: expected a block made by the same command (%s), found %s", path, want, s.Recipe)
	}
	block := &fusion.Block{MLP: fusion.MLP{Hidden: b.Hidden, Width: s.Info.Width, Act: b.Act}, Masked: s.Info.Masked, Inertia: s.Info.Inertia, InputInertia: s.Info.Total}
	if s.Info.Rank > 0 {
		block.Factors = &fusion.Factors{Rank: s.Info.Rank}
	}
	for name, v := range blockValues(block) {
		if t, ok := r.Tensor(name); ok {
			*v = make([]float32, t.Elements())
			if err := t.ReadFloat32(*v); err != nil {
				return info, nil, err
			}
		}
	}
	return s.Info, block, nil
}

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
