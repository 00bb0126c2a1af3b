package ntk

import "mlpfusion/kernel"

// panel builds, for some thousands of parameters of a layer at a time, the
// gradients of all examples: row i of data, or of digits, holds example i's.
type panel struct {
	pool     *kernel.Pool
	layer    *layer
	offsets  []int32
	data     []float32
	signs    []float32   // nil: not wanted
	digits   *digits     // in place of both; or nil
	work     [][]float32 // by worker, with digits: one row of data
	from, to int         // rows of the layer's wide side
	bias     bool
}

// panelParameters is the number of parameters of a panel: enough for the product
// to run at full speed, few enough to stay in cache while it does.
const panelParameters = 9216

// step is the number of the wide side's rows that a panel takes.
func (l *layer) step() int {
	_, _, wide, narrow := l.sides()
	return min(wide, max(1, panelParameters/narrow))
}

// panels is the number of panels of a layer, its bias' included.
func (l *layer) panels() int {
	_, _, wide, _ := l.sides()
	n := (wide + l.step() - 1) / l.step()
	if l.bias {
		n++
	}
	return n
}

// width is the largest number of parameters in a panel of the layers.
func width(layers []layer) int {
	w := 0
	for i := range layers {
		l := &layers[i]
		_, _, _, narrow := l.sides()
		w = max(w, l.step()*narrow)
		if l.bias {
			w = max(w, l.out)
		}
	}
	return w
}

// build fills data and signs, or digits, with panel i of the layer and returns its
// number of parameters, which is also the stride of the rows of data.
func (p *panel) build(l *layer, i int) int {
	_, _, wide, narrow := l.sides()
	p.layer = l
	p.from, p.to = i*l.step(), min(wide, (i+1)*l.step())
	p.bias = p.from >= wide
	m := (p.to - p.from) * narrow
	if p.bias {
		m = l.out
	}
	if p.digits != nil {
		p.digits.stride = (m + digitWidth - 1) / digitWidth * digitWidth
	}
	p.pool.Run(len(p.offsets)-1, p)
	return m
}

// Do builds row i.
func (p *panel) Do(i, w int) {
	l := p.layer
	t, tokens := int(p.offsets[i]), int(p.offsets[i+1]-p.offsets[i])
	a, b, wide, narrow := l.sides()
	rows := p.to - p.from
	m := rows * narrow
	if p.bias {
		m = l.out
	}
	var g []float32
	if p.digits != nil {
		g = p.work[w][:m]
	} else {
		g = p.data[i*m : (i+1)*m]
	}
	switch {
	case p.bias || tokens == 0:
		clear(g)
		if tokens > 0 {
			kernel.AddColumns(g, l.d[t*l.out:], l.out, tokens)
		}
	default:
		p.pool.Scratch(w).Gemm(kernel.FP32, rows, narrow, tokens,
			kernel.Mat{Data: a[t*wide+p.from:], Stride: wide, T: true}, kernel.Mat{Data: b[t*narrow:], Stride: narrow},
			g, narrow, kernel.Epilogue{})
		if l.mask != nil {
			p.cut(g)
		}
	}
	switch {
	case p.digits != nil:
		p.digits.set(i, g)
	case p.signs != nil:
		signs(p.signs[i*m:(i+1)*m], g)
	}
}

// cut makes the gradients of masked weights zero.
func (p *panel) cut(g []float32) {
	l := p.layer
	_, _, _, narrow := l.sides()
	for j := range g {
		r, c := p.from+j/narrow, j%narrow
		if l.out < l.in {
			r, c = c, r
		}
		if l.mask[r*l.in+c] == 0 {
			g[j] = 0
		}
	}
}
