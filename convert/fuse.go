package convert

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"sync"

	"mlpfusion/checkpoint"
	"mlpfusion/fusion"
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
}

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
	if f.sums, err = src.SHA256(ctx, nil); err != nil {
		return nil, err
	}
	f.hashed = src.Weights.BytesRead()
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
	for _, b := range f.blocks {
		if _, ok := f.layers[b.Name]; ok {
			result.Blocks = append(result.Blocks, b.Name)
		}
	}
	return result, os.RemoveAll(f.work)
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
	if f.model, err = model.Open(f.src); err != nil {
		return err
	}
	f.blocks = f.model.Blocks
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
		if _, ok := f.widths[i]; ok && (!f.method.Mixtures || b.Experts > 0) {
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
