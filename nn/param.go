package nn

import "mlpfusion/kernel"

// Weight is one matrix (Rows × Cols, row-major) that operations read and whose
// gradient they accumulate.
type Weight struct {
	Data       []float32
	Rows, Cols int
	// In the place of Data, Half holds the values in bfloat16 (see NewHalf), or Int8
	// whole numbers, with one of Factors for each row (see NewInt8).
	Half    []uint16
	Int8    []int8
	Factors []float32
	// Grad is made when a backward pass first reaches the weight: what is frozen, or only
	// ever evaluated, has none.
	Grad []float32
	// Frozen weights get no gradient.
	Frozen bool
	// Touched lists the rows an embedding's gradient has been added to since
	// ZeroGrad, each once; all other rows' gradients are zero. It is nil for
	// weights that are not embeddings, and for an embedding that is a language
	// model's head as well, whose gradient has no zero rows.
	Touched *RowSet

	// written tells that Grad holds this step's gradient: until the first
	// backward writes it, its contents are stale.
	written bool

	// packed is Data as Linear multiplies by it, see Pack.
	packed *kernel.Packed

	// Stacked tells that it is part of a stack, of which a step always reaches something:
	// where it does not reach the weight, the gradient is zero rather than none.
	Stacked bool

	whole *Weight // of which this is a view, from an element on
	from  int

	// Masked weights keep their zeros: the gradient of a zero element is
	// dropped (method magnitude).
	Masked bool
}

// NewWeight returns a zero weight.
func NewWeight(rows, cols int) *Weight {
	return &Weight{Data: make([]float32, rows*cols), Rows: rows, Cols: cols}
}

// View returns rows [from, to) of w as a weight that shares its memory. When
// views are used in operations, w itself must not be.
func (w *Weight) View(from, to int) *Weight {
	return w.cut(from*w.Cols, to-from, w.Cols)
}

// cut returns rows × cols elements of w, from one on, as a weight.
func (w *Weight) cut(from, rows, cols int) *Weight {
	if w.Data == nil { // whole rows
		m := w.mat().Rows(from/cols, from/cols+rows)
		return &Weight{Half: m.Half, Int8: m.Int8, Factors: m.Factors, Rows: rows, Cols: cols, Frozen: true}
	}
	return &Weight{Data: w.Data[from : from+rows*cols], Rows: rows, Cols: cols, Frozen: w.Frozen, whole: w, from: from}
}

// makeGrad makes the gradient's memory, zero, unless it is there.
func (w *Weight) makeGrad() []float32 {
	switch {
	case w.Grad != nil:
	case w.whole != nil:
		w.Grad = w.whole.makeGrad()[w.from : w.from+len(w.Data)]
	default:
		w.Grad = make([]float32, len(w.Data))
	}
	return w.Grad
}

// Pack lays the weight out as products read it. Until Unpack inference multiplies
// by the values of now, at the precision given.
func (w *Weight) Pack(pool *kernel.Pool, prec kernel.Precision) {
	w.packed = pool.PackB(prec, w.Cols, w.Rows, transposed(w.mat()))
}

// Unpack forgets what Pack laid out.
func (w *Weight) Unpack() { w.packed = nil }

// ZeroGrad makes the gradient zero without touching its memory where the next
// backward overwrites it.
func (w *Weight) ZeroGrad() {
	w.written = false
	if w.Touched != nil {
		for _, r := range w.Touched.Rows {
			clear(w.Grad[int(r)*w.Cols : (int(r)+1)*w.Cols])
		}
		w.Touched.Clear()
	}
}

// Reached tells whether a backward has written the gradient since ZeroGrad; of
// an embedding it has always.
func (w *Weight) Reached() bool { return w.written || w.Touched != nil }

// SettleGrad clears the gradient of a weight that no backward has written since
// ZeroGrad, so that Grad may be read.
func (w *Weight) SettleGrad() {
	if !w.written && w.Touched == nil && !w.Frozen {
		clear(w.makeGrad())
		w.written = true
	}
}

// gradient returns Grad for a backward to write, or add to, and marks it written.
func (w *Weight) gradient() (grad []float32, add bool) {
	add = w.written
	w.written = true
	return w.makeGrad(), add
}

// RowSet is a set of rows in order of arrival.
type RowSet struct {
	Rows []int32
	in   []bool
}

// NewRowSet returns an empty set over rows 0 … n-1.
func NewRowSet(n int) *RowSet { return &RowSet{in: make([]bool, n)} }

// Add puts row r into the set.
func (s *RowSet) Add(r int32) {
	if !s.in[r] {
		s.in[r] = true
		s.Rows = append(s.Rows, r)
	}
}

// Clear empties the set.
func (s *RowSet) Clear() {
	for _, r := range s.Rows {
		s.in[r] = false
	}
	s.Rows = s.Rows[:0]
}

// Param is a named tensor of the checkpoint: a view into a Weight (some weights
// stack several tensors) with what the optimizer needs to know of it.
type Param struct {
	Name       string
	Shape      []int // as in the checkpoint
	Transposed bool  // the checkpoint stores the transpose of Data (GPT-2's Conv1D)
	Data       []float32
	Half       []uint16 // in the place of Data, of a weight that is kept in bfloat16
	Int8       []int8   // or as whole numbers
	Factors    []float32
	Weight     *Weight // the weight it is a part of, see Of
	Decay      bool    // weight decay applies (not to biases and LayerNorm)
	Cols       int     // Data is (len(Data)/Cols × Cols)
	Unit       *Unit   // set for the parameters of a fused MLP's hidden units

	whole *Weight // that it is cut from
	from  int
}

// Of makes p the elements [from, to) of w. Weight may afterwards become a view of w.
func (p *Param) Of(w *Weight, from, to int) {
	p.Weight, p.whole, p.from = w, w, from
	if w.Data != nil {
		p.Data = w.Data[from:to]
		return
	}
	m := w.mat().Rows(from/w.Cols, to/w.Cols)
	p.Half, p.Int8, p.Factors = m.Half, m.Int8, m.Factors
}

// Grad is p's part of the weight's gradient; it may be called by several goroutines
// once a backward pass has reached the weight.
func (p *Param) Grad() []float32 { return p.whole.makeGrad()[p.from : p.from+len(p.Data)] }

// Unit says how the hidden units of a fused MLP lie in a parameter and how their
// steps and gradients are weighted (docs/method.md, "P in training").
type Unit struct {
	Columns bool      // unit k is column k; otherwise row k
	Step    []float32 // multiplies unit k's optimizer step, not its decay; nil: 1
	Norm    []float32 // multiplies unit k's squared gradient in the clipping norm: 1/P_k; nil: 1
}
