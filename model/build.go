package model

import (
	"strings"

	"mlpfusion/kernel"
	"mlpfusion/nn"
)

// Tensor is a family's statement of one checkpoint tensor.
type Tensor struct {
	Name       string
	Shape      []int // as in the checkpoint
	Transposed bool  // stored as the transpose of how it is used
	Head       bool  // belongs to the task head: made anew when a checkpoint lacks it
	Init       Init
	Param      *nn.Param // nil where memory was not asked for, and for fixed tensors
	Fixed      []float32 // a tensor that is not trained: P, step multipliers
}

// Init says how a tensor that a checkpoint lacks begins, as transformers does.
type Init int

const (
	Zeros    Init = iota // biases
	Ones                 // LayerNorm gains
	Normal               // normal with the config's initializer_range
	Residual             // the same, divided by √(2·layers): what adds to GPT-2's residual
)

// Block is one MLP that can be fused, under the names of its tensors. An expert
// of a mixture is a block of its own.
type Block struct {
	Name  string // e.g. bert.encoder.layer.3
	Stack string // "encoder" or "decoder" in models that have both, else ""
	Layer int    // its layer's number within the stack
	Depth int    // its layer's place in the forward pass, counted through all stacks
	// Gate, Up and Down are the names of the matrices without .weight; Gate is
	// "" in an MLP that has none.
	Gate, Up, Down string
	Bias           bool // the matrices have biases
	Transposed     bool // the checkpoint stores the matrices' transposes; not those of factors
	Act            kernel.Activation
	// Router is the name of the tensor (Experts × hidden) that chooses among a
	// mixture's Experts experts, of which this is number Expert; "", 0 and 0
	// for a dense MLP.
	Router          string
	Experts, Expert int

	Hidden, Width int // as loaded
	Form          BlockConfig
	MLP           *MLP // nil where memory was not asked for
}

// Mixture is the name of the mixture that an expert belongs to, as Usage has it.
func (b *Block) Mixture() string {
	name, _, _ := strings.Cut(b.Name, ".experts.")
	return name
}

// Matrices names the block's matrices without .weight, in the order gate (where
// there is one), up, down.
func (b *Block) Matrices() []string {
	if b.Gate == "" {
		return []string{b.Up, b.Down}
	}
	return []string{b.Gate, b.Up, b.Down}
}

// ScaleName and StepName are the names of the fixed tensors beside a block.
func (b *Block) ScaleName() string { return b.Name + ".mlp_scale" }
func (b *Block) StepName() string  { return b.Name + ".mlp_step" }

// builder collects a family's statement while its layers are made.
type builder struct {
	cfg     *Config
	alloc   bool // false: names and shapes only
	head    bool // what is stated now belongs to the task head
	conv    bool // the layers stated now are stored transposed, as Conv1D
	memory  memory
	shared  *memory // of another model, to be used in place of new memory; nil: none
	tensors []Tensor
	weights []*nn.Weight
	blocks  []*Block
}

// memory is what a model's tensors lie in, in the order of its making.
type memory struct {
	weights []*nn.Weight
	fixed   [][]float32
}

func (b *builder) weight(rows, cols int) *nn.Weight {
	w := &nn.Weight{Rows: rows, Cols: cols}
	switch {
	case b.shared != nil:
		w = b.shared.weights[len(b.memory.weights)]
	case b.alloc:
		w = nn.NewWeight(rows, cols)
	}
	b.memory.weights = append(b.memory.weights, w)
	b.weights = append(b.weights, w)
	return w
}

// state adds the tensor that is rows [from, to) of w.
func (b *builder) state(name string, w *nn.Weight, from, to int, shape []int, init Init, decay bool) *nn.Param {
	t := Tensor{Name: name, Shape: shape, Head: b.head, Init: init}
	if b.alloc {
		t.Param = &nn.Param{Name: name, Shape: shape, Weight: w, Decay: decay, Cols: w.Cols,
			Data: w.Data[from*w.Cols : to*w.Cols], Grad: w.Grad[from*w.Cols : to*w.Cols]}
	}
	b.tensors = append(b.tensors, t)
	return t.Param
}

// linear states the layers name.weight (out × in) and name.bias (out) for each
// name, stacked into one layer of len(names)·out outputs.
func (b *builder) linear(in, out int, names ...string) *nn.Linear {
	return b.stack(in, out, true, names...)
}

// plain is linear without biases.
func (b *builder) plain(in, out int, names ...string) *nn.Linear {
	return b.stack(in, out, false, names...)
}

func (b *builder) stack(in, out int, bias bool, names ...string) *nn.Linear {
	n := len(names)
	l := &nn.Linear{W: b.weight(n*out, in)}
	if bias {
		l.B = b.weight(1, n*out)
	}
	for i, name := range names {
		shape := []int{out, in}
		if b.conv {
			shape = []int{in, out}
		}
		p := b.state(name+".weight", l.W, i*out, (i+1)*out, shape, Normal, true)
		if b.conv {
			b.tensors[len(b.tensors)-1].Transposed = true
			if p != nil {
				p.Transposed = true
			}
		}
		if !bias {
			continue
		}
		p = b.state(name+".bias", l.B, 0, 1, []int{out}, Zeros, false)
		if p != nil {
			p.Data, p.Grad = p.Data[i*out:(i+1)*out], p.Grad[i*out:(i+1)*out]
			p.Cols = out
		}
	}
	return l
}

// matrix states name (out × in) without a bias.
func (b *builder) matrix(in, out int, name string) *nn.Weight {
	w := b.weight(out, in)
	b.state(name, w, 0, out, []int{out, in}, Normal, true)
	return w
}

// vector states name (n).
func (b *builder) vector(n int, name string, init Init) *nn.Weight {
	w := b.weight(1, n)
	b.state(name, w, 0, 1, []int{n}, init, false)
	return w
}

func (b *builder) norm(name string) *nn.Norm {
	return &nn.Norm{Gain: b.vector(b.cfg.Hidden, name+".weight", Ones), Bias: b.vector(b.cfg.Hidden, name+".bias", Zeros), Eps: b.cfg.Eps}
}

func (b *builder) embedding(rows int, name string) *nn.Weight {
	w := b.matrix(b.cfg.Hidden, rows, name)
	if b.alloc && b.shared == nil {
		w.Touched = nn.NewRowSet(rows)
	}
	return w
}

// fixed states a tensor of n values that is not trained.
func (b *builder) fixed(name string, n int) []float32 {
	t := Tensor{Name: name, Shape: []int{n}}
	switch {
	case b.shared != nil:
		t.Fixed = b.shared.fixed[len(b.memory.fixed)]
	case b.alloc:
		t.Fixed = make([]float32, n)
	}
	b.memory.fixed = append(b.memory.fixed, t.Fixed)
	b.tensors = append(b.tensors, t)
	return t.Fixed
}

// split makes queries, stacked with keys and values, a layer of their own: of a
// last layer of which few tokens are wanted.
func (b *builder) split(qkv *nn.Linear) (q, kv *nn.Linear) {
	n := qkv.W.Rows
	q, kv = qkv.View(0, n/3), qkv.View(n/3, n)
	b.replace(qkv.W, q.W, kv.W)
	b.replace(qkv.B, q.B, kv.B)
	return q, kv
}

// replace puts views in the place of the weight whose memory they share. A tensor
// that lies in several of them is put down to the first: a pass reaches all or none.
func (b *builder) replace(w *nn.Weight, views ...*nn.Weight) {
	for i, old := range b.weights {
		if old == w {
			b.weights = append(b.weights[:i], append(views, b.weights[i+1:]...)...)
			break
		}
	}
	for i := range b.tensors {
		p := b.tensors[i].Param
		if p == nil || p.Weight != w {
			continue
		}
		for _, v := range views {
			if contains(v.Data, p.Data) {
				p.Weight = v
			}
		}
	}
}

// contains tells whether part lies within whole's memory, or begins with it.
func contains(whole, part []float32) bool {
	for i := 0; i < len(whole); i += len(part) {
		if &whole[i] == &part[0] {
			return true
		}
	}
	return false
}
