package ntk

import (
	"context"
	"errors"
	"fmt"
	"runtime"

	"mlpfusion/kernel"
	"mlpfusion/model"
)

// Kind says which kernel.
type Kind int

const (
	Adam Kind = iota // ⟨g_i, sign(g_j)⟩
	SGD              // ⟨g_i, g_j⟩
)

// ParseKind returns the kind named adam or sgd.
func ParseKind(name string) (Kind, error) {
	switch name {
	case "adam":
		return Adam, nil
	case "sgd":
		return SGD, nil
	}
	return 0, fmt.Errorf("kernel: expected adam or sgd, found %q", name)
}

func (k Kind) String() string { return [...]string{"adam", "sgd"}[k] }

// Kernel is one block's kernel, or a sum over blocks.
type Kernel struct {
	Block string // the block's name
	N     int    // examples
	Data  []float32
}

// Options are the choices of Compute.
type Options struct {
	Kind   Kind
	Blocks []int // which of the model's Blocks; nil: the first, as the paper's authors do

	// Progress, when given, hears of each block: the share of its work done,
	// 0 … 1, and "" as the block's name for the passes through the model.
	Progress func(block string, done float64)
}

func (o *Options) progress(block string, done float64) {
	if o.Progress != nil {
		o.Progress(block, done)
	}
}

// Fused lists the model's fused blocks by their place in Blocks.
func Fused(m *model.Model) []int {
	var list []int
	for i, b := range m.Blocks {
		if _, ok := m.Config.Blocks[b.Name]; ok {
			list = append(list, i)
		}
	}
	return list
}

// All lists all of the model's blocks.
func All(m *model.Model) []int {
	list := make([]int, len(m.Blocks))
	for i := range list {
		list[i] = i
	}
	return list
}

// factorMemory bounds the factors of the blocks that one pass through the model
// keeps, in bytes; one block's are kept in any case.
const factorMemory = 256 << 20

// Compute returns the kernel of each chosen block, in their order, over the
// sequences of in. The bytes do not depend on the number of workers. The model
// is used but left as it was. Errors: blocks or inputs that do not fit the
// model, and the end of ctx.
func Compute(ctx context.Context, pool *kernel.Pool, m *model.Model, in *model.Input, opt Options) ([]*Kernel, error) {
	if opt.Blocks == nil {
		opt.Blocks = []int{0}
	}
	if err := check(m, in, opt.Blocks); err != nil {
		return nil, err
	}
	group := max(1, factorMemory/(2*4*m.Config.Hidden*len(in.IDs)))
	kernels := make([]*Kernel, 0, len(opt.Blocks))
	for done := 0; done < len(opt.Blocks); done += group {
		blocks := opt.Blocks[done:min(done+group, len(opt.Blocks))]
		factors, err := gather(ctx, pool, m, in, blocks, opt.progress)
		if err != nil {
			return nil, err
		}
		for i, b := range blocks {
			block, f := m.Blocks[b], factors[i]
			factors[i] = nil // so that its memory can go as soon as it has been used
			k, err := one(ctx, pool, block.MLP, f, opt.Kind, func(done float64) { opt.progress(block.Name, done) })
			if err != nil {
				return nil, err
			}
			kernels = append(kernels, &Kernel{Block: block.Name, N: len(in.Offsets) - 1, Data: k})
		}
	}
	return kernels, nil
}

// one computes the kernel of one block, some hidden units at a time.
func one(ctx context.Context, pool *kernel.Pool, mlp *model.MLP, f *factors, kind Kind, progress func(float64)) ([]float32, error) {
	order := []int32(nil)
	if kind == SGD {
		f, order = f.byLength(mlp.Down.W.Rows)
	}
	units, group, rate := mlp.Up.W.Rows, unitGroup(mlp, f), rates(mlp, kind)
	var sum []float32
	for from := 0; from < units; from += group {
		release()
		to := min(units, from+group)
		layers := expand(pool, mlp, f, rate, from, to)
		part := func(done float64) { progress((float64(from) + done*float64(to-from)) / float64(units)) }
		var k []float32
		var err error
		switch {
		case kind == SGD:
			k, err = sgd(ctx, pool, layers, f.offsets, pairBlock, sgdPrecision(layers), part)
		case f.single() && !masked(layers):
			k = singleAdam(pool, layers, f.examples())
		default:
			k, err = adam(ctx, pool, layers, f.offsets, useDigits(), part)
		}
		if err != nil {
			return nil, err
		}
		if sum == nil {
			sum = k
		} else {
			kernel.Add(sum, k)
		}
	}
	if order != nil {
		sum = unsort(sum, order)
	}
	return sum, nil
}

// release has the garbage collected now. It is mostly of a pass through the model
// or of the block before, as large as what is allocated next; waiting until the
// heap has doubled would double the memory needed.
func release() { runtime.GC() }

func check(m *model.Model, in *model.Input, blocks []int) error {
	if len(in.Offsets) < 2 {
		return errors.New("ntk: expected at least one example, found none")
	}
	for _, b := range blocks {
		if b < 0 || b >= len(m.Blocks) {
			return fmt.Errorf("ntk: block %d: expected one of the model's %d blocks", b, len(m.Blocks))
		}
	}
	return m.Check(in)
}

// Sum returns the sum of kernels over the same examples: the kernel of all their
// blocks' parameters together.
func Sum(kernels []*Kernel) *Kernel {
	s := &Kernel{Block: "sum", N: kernels[0].N, Data: make([]float32, len(kernels[0].Data))}
	for _, k := range kernels {
		kernel.Add(s.Data, k.Data)
	}
	return s
}
