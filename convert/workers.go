package convert

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"runtime"
	"runtime/debug"
	"slices"
	"sync"

	"mlpfusion/checkpoint"
	"mlpfusion/fusion"
	"mlpfusion/kernel"
	"mlpfusion/model"
)

// compressAll compresses the chosen blocks, several at once where memory allows.
func (f *fuser) compressAll(ctx context.Context) error {
	threads := f.opt.Threads
	if threads <= 0 {
		threads = runtime.GOMAXPROCS(0)
	}
	groups := f.opt.share(f.groups())
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
			size += 4 * b.Width * (b.Matrices()*b.Hidden + 1)
		}
		largest = max(largest, size)
	}
	return 1 + slack/(3*largest)
}

// compress makes a group's blocks, unless the interrupted run has.
func (f *fuser) compress(ctx context.Context, pool *kernel.Pool, group []int) error {
	step := func(place int) Step {
		b := f.blocks[place]
		return Step{Block: b.Name, Index: slices.Index(f.chosen, place), Of: len(f.chosen), Width: f.widths[place], From: b.Width}
	}
	for _, place := range group {
		f.report(step(place))
	}
	if f.opt.Calibration != nil {
		f.opt.Calibration.Watch(func(done, total int) {
			s := step(group[0])
			s.Batch, s.Batches = done, total
			f.report(s)
		})
	}
	infos, err := f.finished(group)
	kept := err == nil
	if errors.Is(err, fs.ErrNotExist) {
		infos, err = f.make(ctx, pool, group)
	}
	if err != nil {
		return err
	}
	for i, place := range group {
		if f.opt.Calibration != nil && slices.ContainsFunc(f.chosen, func(i int) bool { return i > place && f.waits(i) }) {
			if err := f.opt.Calibration.Replace(place, func() (*fusion.Block, error) { return f.load(place) }); err != nil {
				return err
			}
		}
		f.mu.Lock()
		f.layers[f.blocks[place].Name] = infos[i]
		f.mu.Unlock()
		s := step(place)
		s.Done, s.Kept, s.Info = true, kept, infos[i]
		f.report(s)
	}
	debug.FreeOSMemory() // the next block starts from a small process
	return nil
}

// report tells the progress.
func (f *fuser) report(s Step) {
	if f.opt.Progress == nil {
		return
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	s.Read = f.src.Weights.BytesRead() - f.hashed
	if f.opt.Calibration != nil {
		s.Tokens = f.opt.Calibration.Tokens()
	}
	f.opt.Progress(s)
}

// make compresses a group's blocks and keeps them.
func (f *fuser) make(ctx context.Context, pool *kernel.Pool, group []int) ([]checkpoint.Layer, error) {
	var all []compressed
	var err error
	if f.method.Mixtures {
		all, err = f.makeMixture(ctx, pool, group)
	} else {
		all, err = f.makeBlock(ctx, pool, group[0])
	}
	infos := make([]checkpoint.Layer, len(all))
	for i := 0; err == nil && i < len(all); i++ {
		infos[i], err = all[i].info, f.save(group[i], all[i])
	}
	return infos, err
}

// makeBlock reads a block's weights and compresses them.
func (f *fuser) makeBlock(ctx context.Context, pool *kernel.Pool, place int) ([]compressed, error) {
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
	untaught := errors.Is(err, fusion.ErrNoTokens) && b.Experts > 0
	if untaught {
		// An expert that no text of the task comes to is compressed without texts.
		if method.Blind != "" {
			method, _ = fusion.Lookup(method.Blind)
		}
		opt.Inputs, opt.Weighted, opt.Select, opt.Refit, opt.Fit = nil, false, false, false, 0
		block, err = method.Compress(ctx, m, opt)
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %s: %w", f.src.Path, b.Name, err)
	}
	if block.DownBias != nil && !b.Bias {
		return nil, fmt.Errorf("%s: %s: method %s: expected a block with an output bias, which it changes, found none", f.src.Path, b.Name, method.Name)
	}
	info := f.info(b, block)
	info.Method, info.Untaught = method.Name, untaught
	return []compressed{{info, block}}, nil
}

// info is what config.json says of a compressed block.
func (f *fuser) info(b *model.Block, block *fusion.Block) checkpoint.Layer {
	info := checkpoint.Layer{Width: block.Width, Original: b.Width, Inertia: block.Inertia, Total: block.InputInertia, Silhouette: block.Silhouette, Method: f.opt.Method, Masked: block.Masked}
	if block.Factors != nil {
		info.Rank = block.Factors.Rank
	}
	return info
}
