package model

import (
	"slices"

	"mlpfusion/nn"
)

// Tensor is a family's statement of one tensor: a matrix, a vector or the part of
// a checkpoint's tensor that is one.
type Tensor struct {
	Name  string
	Shape []int // as in the checkpoint, transposed matrices too
	Place
	Also  []Place // other places where a checkpoint may have it
	Head  bool    // belongs to the task head: made anew when a checkpoint lacks it
	Init  Init
	Block *Block    // that it belongs to; nil: to none
	Role  string    // in its block, see Block.Tensors
	Layer bool      // the whole matrix of a layer y = W·x + b
	Table bool      // embeddings
	Param *nn.Param // nil where memory was not asked for, and for fixed tensors
	Fixed []float32 // a tensor that is not trained: P, step sizes, the bias of a router's choice
	fixed bool
}

// Trained tells whether the tensor's values are parameters.
func (t *Tensor) Trained() bool { return !t.fixed }

// Place is where a stated tensor lies in a checkpoint.
type Place struct {
	// In is the checkpoint's tensor; "" is that of the statement's name.
	In string
	// Part is which of Parts equal parts of it, one below the other; 0 of 0 is
	// the whole.
	Part, Parts int
	// Stack > 0 tells that the tensor has three dimensions: this many matrices, one
	// below the other.
	Stack int
	// Transposed tells that it is stored as the transpose of how it is used.
	Transposed bool
}

// Init says how a tensor that a checkpoint lacks begins, as transformers does.
type Init int

const (
	Zeros    Init = iota // biases
	Ones                 // gains of norms
	Normal               // normal with the config's initializer_range
	Residual             // the same, divided by √(2·layers): what adds to GPT-2's residual
	Uniform              // uniform from −1/√columns to 1/√columns
	Nothing              // zeros, of a matrix: the second of a low-rank path
)

// builder collects a family's statement while its layers are made.
type builder struct {
	cfg      *Config
	alloc    bool // false: names and shapes only
	part     *int // the one layer that has memory, see Source.Part; nil: every
	head     bool // what is stated now belongs to the task head
	conv     bool // matrices of layers stated now are stored transposed, as Conv1D
	paths    paths
	memory   memory
	shared   *memory // of another model, to be used in place of new memory; nil: none
	tensors  []Tensor
	weights  []*nn.Weight
	blocks   []*Block
	mixtures []*mixture
	out      *head
}

// network states all tensors and returns the forward pass.
func (b *builder) network() network {
	if b.cfg.seq2seq != nil {
		return newEncoderDecoder(b)
	}
	return newStack(b)
}

// readBy says which layers read the tensors stated from here on, so that a part of a
// model has memory for its own: −1 is the embeddings, behind the last comes the head.
func (b *builder) readBy(layers ...int) {
	if b.part != nil {
		b.alloc = slices.Contains(layers, *b.part)
	}
}

// memory is what a model's tensors lie in, in the order of its making.
type memory struct {
	weights []*nn.Weight
	fixed   [][]float32
}

// weight makes the memory of tensors, which are trained or not. Of those that are not,
// what is only multiplied by and looked up may be kept narrow, see Base.
func (b *builder) weight(rows, cols int, trained, narrow bool) *nn.Weight {
	w := &nn.Weight{Rows: rows, Cols: cols}
	switch {
	case b.shared != nil:
		w = b.shared.weights[len(b.memory.weights)]
	case b.alloc && !trained && narrow && b.cfg.Base == BaseBF16:
		w = nn.NewHalf(rows, cols)
	case b.alloc && !trained && narrow && b.cfg.Base == BaseInt8:
		w = nn.NewInt8(rows, cols)
	case b.alloc:
		w = nn.NewWeight(rows, cols)
		w.Frozen = !trained
	}
	b.memory.weights = append(b.memory.weights, w)
	b.weights = append(b.weights, w)
	return w
}

// state adds a tensor that is the elements [from, to) of w, in rows of cols.
func (b *builder) state(t Tensor, w *nn.Weight, from, to, cols int) *Tensor {
	t.Head = b.head
	b.tensors = append(b.tensors, b.laid(t, w, from, to, cols))
	return &b.tensors[len(b.tensors)-1]
}

// laid is a tensor with its memory, the elements [from, to) of w.
func (b *builder) laid(t Tensor, w *nn.Weight, from, to, cols int) Tensor {
	if b.alloc {
		t.Param = &nn.Param{Name: t.Name, Shape: t.Shape, Transposed: t.Transposed, Cols: cols, Decay: t.Init != Zeros && t.Init != Ones}
		t.Param.Of(w, from, to)
	}
	return t
}

// linear states a layer's matrix (out × in) as name.weight and, if asked, its bias.
func (b *builder) linear(in, out int, bias bool, init Init, name string) *nn.Linear {
	return b.stacked(in, bias, init, []string{name}, []int{out})
}

// also gives the tensor stated last another place.
func (b *builder) also(p Place) {
	last := &b.tensors[len(b.tensors)-1]
	last.Also = append(last.Also, p)
}

// stacked states the layers of the given names and numbers of outputs, one upon
// the other as one layer.
func (b *builder) stacked(in int, bias bool, init Init, names []string, outs []int) *nn.Linear {
	all := 0
	for _, out := range outs {
		all += out
	}
	trained := b.trains(names...)
	l := &nn.Linear{W: b.weight(all, in, trained, true)}
	if bias {
		l.B = b.weight(1, all, trained, false)
	}
	from := 0
	for i, out := range outs {
		t := Tensor{Name: names[i] + ".weight", Shape: []int{out, in}, Init: init, Layer: true, Place: Place{Transposed: b.conv}}
		if b.conv {
			t.Shape = []int{in, out}
		}
		b.state(t, l.W, from*in, (from+out)*in, in)
		if bias {
			b.state(Tensor{Name: names[i] + ".bias", Shape: []int{out}}, l.B, from, from+out, out)
		}
		b.adapt(l, names[i], from, 0, out, out)
		from += out
	}
	return l
}

// tensor states a matrix or a vector that is a weight of its own.
func (b *builder) tensor(t Tensor) *nn.Weight {
	rows, cols := 1, t.Shape[0]
	if len(t.Shape) == 2 {
		rows, cols = t.Shape[0], t.Shape[1]
	}
	if t.Transposed {
		rows, cols = cols, rows
	}
	w := b.weight(rows, cols, b.trains(t.Module()), t.Layer || t.Table)
	b.state(t, w, 0, rows*cols, cols)
	return w
}

// matrix states name (out × in) without a bias.
func (b *builder) matrix(in, out int, name string) *nn.Weight {
	return b.tensor(Tensor{Name: name, Shape: []int{out, in}, Init: Normal})
}

// vector states name (n).
func (b *builder) vector(n int, name string, init Init) *nn.Weight {
	return b.tensor(Tensor{Name: name, Shape: []int{n}, Init: init})
}

// norm states a norm of the configuration's kind; nil for no name.
func (b *builder) norm(name string) *norm {
	c := b.cfg
	if name == "" {
		return nil
	}
	if c.Norm != LayerNorm {
		return &norm{rms: b.rmsNorm(c.Hidden, name)}
	}
	gain := b.vector(c.Hidden, name+".weight", Ones)
	return &norm{layer: &nn.Norm{Gain: gain, Bias: b.vector(c.Hidden, name+".bias", Zeros), Eps: c.Eps}}
}

// rmsNorm states an RMSNorm of a width.
func (b *builder) rmsNorm(width int, name string) *nn.RMSNorm {
	n, init := &nn.RMSNorm{Eps: b.cfg.Eps, OnePlus: b.cfg.Norm == RMSNormOnePlus}, Ones
	if n.OnePlus {
		init = Zeros
	}
	n.Gain = b.vector(width, name+".weight", init)
	return n
}

// embedding states a table of rows, which may have other names too.
func (b *builder) embedding(rows int, name string, also ...string) *nn.Weight {
	w := b.tensor(Tensor{Name: name + ".weight", Shape: []int{rows, b.cfg.Hidden}, Init: Normal, Table: true})
	for _, name := range also {
		b.also(Place{In: name})
	}
	if b.alloc && b.shared == nil && !w.Frozen {
		w.Touched = nn.NewRowSet(rows)
	}
	return w
}

// fixed states a vector that is not trained.
func (b *builder) fixed(t Tensor) []float32 {
	switch {
	case b.shared != nil:
		t.Fixed = b.shared.fixed[len(b.memory.fixed)]
	case b.alloc:
		t.Fixed = make([]float32, t.Shape[0])
	}
	t.fixed = true
	b.memory.fixed = append(b.memory.fixed, t.Fixed)
	b.tensors = append(b.tensors, t)
	return t.Fixed
}

// split makes the queries, the first outputs of a layer, a layer of their own, and
// keys and values another: of a last layer of which few tokens are wanted.
func (b *builder) split(qkv *nn.Linear, queries int) (q, kv *nn.Linear) {
	q, kv = qkv.View(0, queries), qkv.View(queries, qkv.W.Rows)
	b.replace(qkv.W, q.W, kv.W)
	if qkv.B != nil {
		b.replace(qkv.B, q.B, kv.B)
	}
	for _, s := range qkv.Sides {
		if s.From < queries && s.From+s.B.Rows > queries { // one path for all three
			b.replace(s.B, q.Sides[0].B, kv.Sides[0].B)
		}
	}
	return q, kv
}

// replace puts views in the place of the weight whose memory they share. A tensor
// that lies in several of them counts as part of the first: a pass reaches all or
// none.
func (b *builder) replace(w *nn.Weight, views ...*nn.Weight) {
	for i, old := range b.weights {
		if old == w {
			b.weights = append(b.weights[:i], append(views, b.weights[i+1:]...)...)
			break
		}
	}
	for _, list := range [][]Tensor{b.tensors, b.paths.tensors} {
		for i := range list {
			p := list[i].Param
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
