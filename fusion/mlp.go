package fusion

import (
	"errors"
	"fmt"
	"math"
	"runtime/debug"

	"mlpfusion/kernel"
)

// MLP is the weights of one block. A plain block (Gate nil) is
//
//	y = Down·σ(Up·x + UpBias) + DownBias
//
// and a gated one
//
//	y = Down·(σ(Gate·x + GateBias) ⊙ (Up·x + UpBias)) + DownBias
//
// Gate and Up are Width×Hidden, Down is Hidden×Width, all row-major; biases are
// nil where the model has none.
type MLP struct {
	Hidden, Width int // p and p_I
	Act           kernel.Activation

	Gate, GateBias []float32
	Up, UpBias     []float32
	Down, DownBias []float32
}

// part is the share of one tensor in a sub-MLP: unit i holds n values, the
// k-th at data[i*unit+k*step], and at x[i*d+at+k] of the sub-MLP matrix.
type part struct {
	name       string
	data       []float32
	n          int
	unit, step int
	at         int
	bias       bool
}

// parts lists the tensors of a sub-MLP in the order of its vector: gate, gate
// bias, up, up bias, down; and returns the length of that vector.
func (m *MLP) parts() ([]part, int) {
	var list []part
	d := 0
	add := func(name string, data []float32, n, unit, step int, bias bool) {
		if data != nil {
			list = append(list, part{name, data, n, unit, step, d, bias})
			d += n
		}
	}
	p := m.Hidden
	add("gate", m.Gate, p, p, 1, false)
	add("gate bias", m.GateBias, 1, 1, 1, true)
	add("up", m.Up, p, p, 1, false)
	add("up bias", m.UpBias, 1, 1, 1, true)
	add("down", m.Down, p, 1, m.Width, false)
	return list, d
}

// SubMLPs returns the sub-MLP matrix X, Width×d row-major: row i is hidden unit
// i, its gate row and bias, its up row and bias, its down column. Absent
// tensors leave their place out: d is 2p+1 for a plain block with bias, 2p
// without, 3p for a gated block without biases.
func (m *MLP) SubMLPs() (x []float32, d int) {
	list, d := m.parts()
	x = make([]float32, m.Width*d)
	for _, t := range list {
		for i := range m.Width {
			row := x[i*d+t.at:]
			for k := range t.n {
				row[k] = t.data[i*t.unit+k*t.step]
			}
		}
	}
	return x, d
}

// drop frees the units' weights, and at once where they are large; what is left
// knows which tensors there were.
func (m *MLP) drop() {
	large := len(m.Up) > 1<<22
	for _, w := range []*[]float32{&m.Gate, &m.GateBias, &m.Up, &m.UpBias, &m.Down} {
		if *w != nil {
			*w = []float32{}
		}
	}
	if large {
		debug.FreeOSMemory()
	}
}

// withUnits returns a block shaped like m whose hidden units are the rows of x,
// c×d in the layout of SubMLPs; the output bias is copied.
func (m *MLP) withUnits(x []float32, c int) *Block {
	b := &Block{MLP: m.shape(c)}
	list, d := b.parts()
	for _, t := range list {
		for i := range c {
			row := x[i*d+t.at:]
			for k := range t.n {
				t.data[i*t.unit+k*t.step] = row[k]
			}
		}
	}
	return b
}

// shape returns zero weights for a block of c units with m's tensors, and a
// copy of m's output bias.
func (m *MLP) shape(c int) MLP {
	like := func(t []float32, n int) []float32 {
		if t == nil {
			return nil
		}
		return make([]float32, n)
	}
	p := m.Hidden
	return MLP{
		Hidden: p, Width: c, Act: m.Act,
		Gate: like(m.Gate, c*p), GateBias: like(m.GateBias, c),
		Up: like(m.Up, c*p), UpBias: like(m.UpBias, c),
		Down: like(m.Down, p*c), DownBias: append([]float32(nil), m.DownBias...),
	}
}

// check reports the first thing wrong with the block: a tensor of the wrong
// length, or a value that is not a finite number, named by its hidden unit.
func (m *MLP) check() error {
	if m.Hidden < 1 || m.Width < 1 {
		return fmt.Errorf("fusion: a block needs a hidden size and a width of at least 1, found %d and %d", m.Hidden, m.Width)
	}
	if m.Up == nil || m.Down == nil {
		return errors.New("fusion: a block needs up and down weights")
	}
	if m.Gate == nil && m.GateBias != nil {
		return errors.New("fusion: the block has a gate bias but no gate")
	}
	list, _ := m.parts()
	for _, t := range list {
		if len(t.data) != m.Width*t.n {
			return fmt.Errorf("fusion: %s: expected %d values for %d hidden units, found %d", t.name, m.Width*t.n, m.Width, len(t.data))
		}
		for i := range m.Width {
			for k := range t.n {
				if v := t.data[i*t.unit+k*t.step]; !finite(v) {
					return fmt.Errorf("fusion: %s: hidden unit %d holds %v", t.name, i, v)
				}
			}
		}
	}
	if m.DownBias != nil && len(m.DownBias) != m.Hidden {
		return fmt.Errorf("fusion: down bias: expected %d values, found %d", m.Hidden, len(m.DownBias))
	}
	for i, v := range m.DownBias {
		if !finite(v) {
			return fmt.Errorf("fusion: down bias: output %d holds %v", i, v)
		}
	}
	return nil
}

func finite(v float32) bool {
	return !math.IsNaN(float64(v)) && !math.IsInf(float64(v), 0)
}

// chunk is the number of tokens a forward pass handles at a time, so that its
// memory does not grow with the input.
const chunk = 512

// Forward writes the block's output for x (tokens×Hidden) to out of the same
// shape.
func (m *MLP) Forward(pool *kernel.Pool, x []float32, tokens int, out []float32) {
	m.run(pool, x, tokens, out, nil)
}

func (m *MLP) run(pool *kernel.Pool, x []float32, tokens int, out, scale []float32) {
	p := m.Hidden
	h := make([]float32, min(tokens, chunk)*m.Width)
	for t := 0; t < tokens; t += chunk {
		n := min(chunk, tokens-t)
		m.hidden(pool, x[t*p:], n, h, scale)
		linear(pool, m.Down, h, n, m.Width, p, out[t*p:], kernel.Epilogue{Bias: m.DownBias})
	}
}

// hidden writes what the down projection reads, tokens×Width.
func (m *MLP) hidden(pool *kernel.Pool, x []float32, tokens int, h, scale []float32) {
	if m.Gate == nil {
		linear(pool, m.Up, x, tokens, m.Hidden, m.Width, h, kernel.Epilogue{Bias: m.UpBias, Act: m.Act, Scale: scale})
		return
	}
	u := make([]float32, tokens*m.Width)
	linear(pool, m.Up, x, tokens, m.Hidden, m.Width, u, kernel.Epilogue{Bias: m.UpBias})
	linear(pool, m.Gate, x, tokens, m.Hidden, m.Width, h, kernel.Epilogue{Bias: m.GateBias, Act: m.Act, Scale: scale, Mul: u})
}

// linear writes epilogue(x·Wᵀ) to y: x is tokens×in, w is out×in, y tokens×out.
func linear(pool *kernel.Pool, w, x []float32, tokens, in, out int, y []float32, ep kernel.Epilogue) {
	pool.Gemm(kernel.FP32, tokens, out, in, kernel.Mat{Data: x, Stride: in}, kernel.Mat{Data: w, Stride: in, T: true}, y, out, ep)
}
