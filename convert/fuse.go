package convert

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"sync"

	"mlpfusion/checkpoint"
	"mlpfusion/fusion"
	"mlpfusion/internal/disk"
	"mlpfusion/model"
)

// FuseOptions are the choices of Fuse.
type FuseOptions struct {
	Plan
	Method  string         // a name of package fusion
	Fusion  fusion.Options // Experts 0: a quarter of each mixture's
	Threads int            // 0: all
	// Calibration gives a block's inputs to the methods that use them; nil
	// when there are none. Blocks are then compressed in order of depth.
	Calibration     Calibration
	CalibrationName string // of the texts, for the record
	// Apart has each block fitted to the original's states, so that none waits for those
	// before it. Blocks of mixtures always are.
	Apart bool
	// Shard of Shards, from 1, makes its share of the blocks and leaves them beside out,
	// for Merge; 0 of 0 makes all of them.
	Shard, Shards int
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
	// Mixture returns the inputs of the mixture that a block is an expert of, in the
	// original.
	Mixture(block int) (fusion.RoutedInputs, error)
	// Rewind goes back to the first block.
	Rewind()
	// Replace puts the compressed block in its place; it is asked for where it is needed.
	Replace(block int, compressed func() (*fusion.Block, error)) error
	// Watch has progress told the batches that are done of a pass through a layer.
	Watch(progress func(done, total int))
	// Tokens is how many tokens have passed through a layer, those of all layers added up.
	Tokens() int64
}

// Step is a block's turn in Fuse.
type Step struct {
	Block       string
	Index, Of   int // of the chosen blocks
	Done        bool
	Kept        bool // taken from the interrupted run
	Width, From int
	Info        checkpoint.Layer // when Done
	// Batch of Batches is where a pass of the texts through a layer is, 0 of 0 otherwise.
	Batch, Batches int
	// Tokens have passed through a layer so far, those of all layers added up; Read are the
	// bytes of weights read for all that.
	Tokens, Read int64
}

// Fused is what Fuse made.
type Fused struct {
	Layers      map[string]checkpoint.Layer `json:"layers"`
	Blocks      []string                    `json:"blocks"`       // those of Layers, in order of depth
	SourceBytes int64                       `json:"source_bytes"` // of the weight files
	Bytes       int64                       `json:"bytes"`
	// Shard is the folder in which a shard has left its blocks; then nothing else was written.
	Shard string `json:"shard,omitempty"`
}

// Fuse compresses MLP blocks of the model in src and writes the result to the
// directory out. All else is copied as it is.
func Fuse(ctx context.Context, src *checkpoint.Dir, out string, opt FuseOptions) (*Fused, error) {
	f := &fuser{src: src, opt: opt, work: filepath.Clean(out) + WorkSuffix}
	if err := f.prepare(); err != nil {
		return nil, err
	}
	if opt.Shards > 0 {
		return f.fuseShard(ctx)
	}
	// Claim the place first: better to fail now than after the clustering.
	o, err := checkpoint.CreateOutput(out, opt.Overwrite)
	if err != nil {
		return nil, err
	}
	defer o.Abort()
	defer func() { _ = disk.Remove(f.work) }() // unless it holds finished blocks
	if err := f.begin(ctx); err != nil {
		return nil, err
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
	return f.result(out), disk.RemoveAll(f.work)
}

// fuseShard makes the shard's blocks.
func (f *fuser) fuseShard(ctx context.Context) (*Fused, error) {
	if err := f.begin(ctx); err != nil {
		return nil, err
	}
	if err := f.saveShard(); err != nil {
		return nil, err
	}
	if err := f.compressAll(ctx); err != nil {
		return nil, err
	}
	r := f.result("")
	r.Shard = f.work
	return r, nil
}

// begin opens the folder of finished blocks and divides the budget.
func (f *fuser) begin(ctx context.Context) (err error) {
	if err := disk.MkdirAll(f.work); err != nil {
		return err
	}
	if f.sums, err = f.src.SHA256(ctx, nil); err != nil {
		return err
	}
	f.hashed = f.src.Weights.BytesRead()
	if f.opt.Budget != 0 {
		return f.allocate(ctx)
	}
	return nil
}

// result tells what was made.
func (f *fuser) result(out string) *Fused {
	r := &Fused{Layers: f.layers, SourceBytes: weightBytes(f.src.Path)}
	if out != "" {
		r.Bytes = weightBytes(out)
	}
	for _, b := range f.blocks {
		if l, ok := f.layers[b.Name]; ok && l.Width > 0 {
			r.Blocks = append(r.Blocks, b.Name)
		}
	}
	return r
}

// Untaught lists the experts that no calibration text came to.
func (r *Fused) Untaught() []string {
	return slices.DeleteFunc(slices.Clone(r.Blocks), func(name string) bool { return !r.Layers[name].Untaught })
}

type fuser struct {
	src    *checkpoint.Dir
	opt    FuseOptions
	method *fusion.Method
	work   string            // folder of finished blocks
	sums   map[string]string // of the source's weights
	hashed int64             // bytes read for them
	model  *model.Source
	blocks []*model.Block
	widths map[int]int
	chosen []int // places of the blocks to compress
	layers map[string]checkpoint.Layer
	mu     sync.Mutex

	// Of a merge: what each block must have been made by, and its file.
	recipes, paths map[int]string
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
	if err := f.open(); err != nil {
		return err
	}
	if f.widths, err = f.opt.Choose(f.blocks); err != nil {
		return err
	}
	for i, b := range f.blocks {
		if _, ok := f.widths[i]; ok && (!f.method.Mixtures || b.Experts > 0) {
			f.chosen = append(f.chosen, i)
		}
	}
	if len(f.chosen) == 0 {
		return fmt.Errorf("%s: method %s: expected mixtures of experts in the chosen layers, found none", f.src.Path, f.opt.Method)
	}
	if err := cmp.Or(f.checkShard(), f.checkDrop()); err != nil {
		return err
	}
	began := f.work
	if f.opt.Shards > 0 { // others may be at work in the folder
		began = filepath.Join(f.work, shardFile(f.opt.Shard, f.opt.Shards))
	}
	_, err = os.Stat(began)
	if err == nil && !f.opt.Resume {
		return fmt.Errorf("%s: expected no interrupted run, found its finished blocks: give --resume to go on with them or remove the folder", f.work)
	}
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

// open finds the model's blocks, and what is known of those compressed before.
func (f *fuser) open() (err error) {
	if f.model, err = model.Open(f.src); err != nil {
		return err
	}
	f.blocks = f.model.Blocks
	f.layers = map[string]checkpoint.Layer{}
	if earlier, err := f.src.Config.Fusion(); err != nil {
		return err
	} else if earlier != nil {
		maps.Copy(f.layers, earlier.Layers) // they stay as they are
	}
	return nil
}
