package experiment

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"path/filepath"

	"mlpfusion/checkpoint"
	"mlpfusion/convert"
	"mlpfusion/internal/disk"
	"mlpfusion/model"
	"mlpfusion/ntk"
)

// baseline is the original with the head of one task and seed, and its kernels.
type baseline struct {
	task    *taskData
	seed    uint64
	m       *model.Model
	kernels map[int]*ntk.Kernel // by block
}

// setBase loads the original for a task and seed, unless it is loaded.
func (r *Runner) setBase(d *taskData, seed uint64) error {
	if r.base != nil && r.base.task == d && r.base.seed == seed {
		return nil
	}
	m, err := loadModel(r.Source.Path, d.head, seed, nil)
	if err != nil {
		return err
	}
	r.base = &baseline{d, seed, m, map[int]*ntk.Kernel{}}
	return nil
}

// measure compares the compressed model with the original on dev texts.
func (m *maker) measure(ctx context.Context) error {
	if len(m.Blocks) == 0 {
		return nil
	}
	m.stage("output error", "text", 0, m.Config.OutputRows, "")
	n, err := m.load()
	if err != nil {
		return err
	}
	in := packed(m.d.dev, min(m.Config.OutputRows, m.d.dev.Len()))
	e, err := ntk.CompareOutputs(ctx, m.Pool, m.base.m, n, in)
	if err != nil {
		return err
	}
	m.Output = &OutputError{e.Hidden, e.HiddenNorm, e.Logits, e.LogitsNorm}
	if len(n.Usage()) > 0 {
		if m.Routers, err = convert.Routers(ctx, m.Pool, n, m.base.m, []model.Input{*in}, nil); err != nil {
			return err
		}
	}
	if m.Config.NTKRows == 0 || m.PMode == Forward {
		return nil
	}
	return m.measureKernels(ctx, n)
}

// measureKernels compares the tangent kernels.
func (m *maker) measureKernels(ctx context.Context, n *model.Model) error {
	in := packed(m.d.dev, min(m.Config.NTKRows, m.d.dev.Len()))
	kind, err := ntk.ParseKind(map[string]string{"adamw": "adam", "sgd": "sgd"}[m.Config.Optimizer])
	if err != nil {
		return err
	}
	opt := ntk.Options{Kind: kind, Blocks: ntk.Fused(n), Progress: func(_ string, done float64) { m.stage("tangent kernel", "%", int(100*done), 100, "") }}
	theirs, err := m.originals(ctx, m.Key, in, opt)
	if err != nil {
		return err
	}
	ours, err := ntk.Compute(ctx, m.Pool, n, in, opt)
	if err != nil {
		return err
	}
	m.NTK = &NTK{Kind: kind.String(), Rows: len(in.Offsets) - 1, Kernel: filepath.Join("kernels", m.ID()+".npy")}
	for i, k := range ours {
		diff, err := compare(theirs[i], k)
		if err != nil {
			return err
		}
		m.NTK.Blocks = append(m.NTK.Blocks, BlockDifference{k.Block, diff})
	}
	total, sum := ntk.Sum(theirs), ntk.Sum(ours)
	if m.NTK.Sum, err = compare(total, sum); err != nil {
		return err
	}
	m.NTK.Original = filepath.Join("kernels", m.shardName(fmt.Sprintf("original_%s_seed%d", m.Task, m.Seed))+".npy")
	if err := writeKernel(filepath.Join(m.Dir, m.NTK.Original), total); err != nil {
		return err
	}
	return writeKernel(filepath.Join(m.Dir, m.NTK.Kernel), sum)
}

// originals returns the original's kernels of some blocks, computed once for a
// task and seed, and kept for a comparison that goes on.
func (r *Runner) originals(ctx context.Context, k Key, in *model.Input, opt ntk.Options) ([]*ntk.Kernel, error) {
	file := func(block int) string {
		return filepath.Join(r.Dir, "kernels", r.shardName(fmt.Sprintf("original_%s_seed%d_block%d", k.Task, k.Seed, block))+".npy")
	}
	blocks := opt.Blocks
	opt.Blocks = nil
	for _, b := range blocks {
		if r.base.kernels[b] != nil {
			continue
		}
		kernel, err := ReadKernel(file(b))
		if errors.Is(err, fs.ErrNotExist) {
			opt.Blocks = append(opt.Blocks, b)
			continue
		}
		if err != nil {
			return nil, err
		}
		kernel.Block = r.base.m.Blocks[b].Name
		r.base.kernels[b] = kernel
	}
	if opt.Blocks != nil {
		made, err := ntk.Compute(ctx, r.Pool, r.base.m, in, opt)
		if err != nil {
			return nil, err
		}
		for i, kernel := range made {
			r.base.kernels[opt.Blocks[i]] = kernel
			if err := writeKernel(file(opt.Blocks[i]), kernel); err != nil {
				return nil, err
			}
		}
	}
	list := make([]*ntk.Kernel, len(blocks))
	for i, b := range blocks {
		list[i] = r.base.kernels[b]
	}
	return list, nil
}

// compare is ntk.Compare with 0 where a kernel that is zero leaves a number
// undefined, as JSON has no other word for it.
func compare(a, b *ntk.Kernel) (ntk.Difference, error) {
	d, err := ntk.Compare(a, b)
	for _, v := range []*float64{&d.Relative, &d.Alignment} {
		if math.IsNaN(*v) || math.IsInf(*v, 0) {
			*v = 0
		}
	}
	return d, err
}

func writeKernel(path string, k *ntk.Kernel) error {
	f, err := checkpoint.CreateAtomic(path)
	if err != nil {
		return err
	}
	defer f.Abort()
	if err := ntk.WriteNPY(f, k); err != nil {
		return err
	}
	return f.Commit()
}

// ReadKernel reads a kernel that a comparison kept.
func ReadKernel(path string) (*ntk.Kernel, error) {
	f, err := disk.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return ntk.ReadNPY(f, path)
}
