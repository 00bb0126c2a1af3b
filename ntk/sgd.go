package ntk

import (
	"cmp"
	"context"
	"slices"

	"mlpfusion/kernel"
)

// pairBlock is the number of examples of a block of sgd's pairs; innerBlock that
// of the rows of one product within it.
const pairBlock, innerBlock = 128, 16

// sgd returns the upper triangle of K_ij = ⟨g_i, g_j⟩; below the diagonal its
// result is undefined. There are two ways to a pair of examples in a layer
// (Novak et al. 2022): by tokens,
//
//	⟨G_i, G_j⟩ = Σ_t∈i Σ_s∈j (x_t·x_s)(δ_t·δ_s),
//
// with T_i·T_j·(in + out) products, or by parameters, with in·out products once
// G_i and G_j are built, which are then read at the given precision. The examples
// must be sorted by length. They are put into blocks, and each pair of blocks goes
// the cheaper way.
func sgd(ctx context.Context, pool *kernel.Pool, layers []layer, offsets []int32, block int, prec kernel.Precision, progress func(float64)) ([]float32, error) {
	n := len(offsets) - 1
	s := &pairs{pool: pool, offsets: offsets, n: n, block: block, prec: prec, k: make([]float32, n*n),
		tiles: make([][2][]float32, pool.Workers())}
	for i := range layers {
		s.layer = &layers[i]
		s.divide()
		pool.Run(len(s.tasks), s)
		err := s.byParameters(ctx, func(done float64) { progress((float64(i) + done) / float64(len(layers))) })
		if err != nil {
			return nil, err
		}
	}
	return s.k, nil
}

// roundParameters is the number of a layer's parameters from which rounding each
// gradient to bfloat16 moves a kernel by 2e-4 of its norm at most: the roundings
// are independent, and what is left of them goes with the root of their number.
const roundParameters = 1 << 16

// sgdPrecision is the precision of products by parameters: bfloat16 where that
// doubles the speed and the layers are large enough.
func sgdPrecision(layers []layer) kernel.Precision {
	for i := range layers {
		if layers[i].in*layers[i].out < roundParameters {
			return kernel.FP32
		}
	}
	if kernel.FastBF16() {
		return kernel.BF16
	}
	return kernel.FP32
}

// byLength returns f with the examples sorted by their number of tokens, and
// which example of f is at each place.
func (f *factors) byLength(hidden int) (*factors, []int32) {
	order := make([]int32, f.examples())
	for i := range order {
		order[i] = int32(i)
	}
	slices.SortStableFunc(order, func(a, b int32) int {
		return cmp.Compare(f.offsets[a+1]-f.offsets[a], f.offsets[b+1]-f.offsets[b])
	})
	s := &factors{x: make([]float32, 0, len(f.x)), dy: make([]float32, 0, len(f.dy)), offsets: []int32{0}}
	for _, e := range order {
		a, b := int(f.offsets[e])*hidden, int(f.offsets[e+1])*hidden
		s.x = append(s.x, f.x[a:b]...)
		s.dy = append(s.dy, f.dy[a:b]...)
		s.offsets = append(s.offsets, int32(len(s.x)/hidden))
	}
	return s, order
}

// unsort returns the symmetric matrix of which k is the upper triangle, with row
// and column i moved to order[i].
func unsort(k []float32, order []int32) []float32 {
	n := len(order)
	full := make([]float32, n*n)
	for i, a := range order {
		for j := i; j < n; j++ {
			b := order[j]
			full[int(a)*n+int(b)], full[int(b)*n+int(a)] = k[i*n+j], k[i*n+j]
		}
	}
	return full
}

// pairs is the work of sgd in one layer.
type pairs struct {
	pool    *kernel.Pool
	offsets []int32
	n       int
	block   int
	prec    kernel.Precision // of the products by parameters
	k       []float32

	layer *layer
	from  []int          // by block: the first of its partners that go by parameters
	tasks [][2]int       // pairs of blocks that go by tokens
	tiles [][2][]float32 // by worker
}

// at returns the example with which block b begins.
func (s *pairs) at(b int) int { return min(b*s.block, s.n) }

// divide chooses the way for each pair of blocks. A block's partners by tokens
// come before those by parameters, for these are longer.
func (s *pairs) divide() {
	l := s.layer
	blocks := (s.n + s.block - 1) / s.block
	s.from, s.tasks = make([]int, blocks), s.tasks[:0]
	size := func(b int) (examples, tokens int) {
		a, e := s.at(b), s.at(b+1)
		return e - a, int(s.offsets[e] - s.offsets[a])
	}
	for a := range blocks {
		b := a
		for ; b < blocks && l.mask == nil; b++ {
			na, ta := size(a)
			nb, tb := size(b)
			if ta*tb*(l.in+l.out) > na*nb*l.in*l.out {
				break
			}
			s.tasks = append(s.tasks, [2]int{a, b})
		}
		s.from[a] = b
	}
}

// Do computes one pair of blocks by tokens.
func (s *pairs) Do(i, w int) {
	a, b := s.tasks[i][0], s.tasks[i][1]
	for from := s.at(a); from < s.at(a+1); from += innerBlock {
		s.tile(from, min(from+innerBlock, s.at(a+1)), s.at(b), s.at(b+1), w)
	}
}

// tile adds to rows [i0, i1) and columns [j0, j1) of k, by tokens.
func (s *pairs) tile(i0, i1, j0, j1, w int) {
	l := s.layer
	t0, t1, u0, u1 := int(s.offsets[i0]), int(s.offsets[i1]), int(s.offsets[j0]), int(s.offsets[j1])
	rows, cols := t1-t0, u1-u0
	buf := &s.tiles[w]
	for i := range buf {
		if len(buf[i]) < rows*cols {
			buf[i] = make([]float32, rows*cols)
		}
	}
	xx, dd := buf[0][:rows*cols], buf[1][:rows*cols]
	product := func(m []float32, width int, c []float32, ep kernel.Epilogue) {
		s.pool.Scratch(w).Gemm(kernel.FP32, rows, cols, width,
			kernel.Mat{Data: m[t0*width:], Stride: width}, kernel.Mat{Data: m[u0*width:], Stride: width, T: true}, c, cols, ep)
	}
	product(l.x, l.in, xx, kernel.Epilogue{})
	if l.bias { // a bias is a weight whose input is 1
		for i := range xx {
			xx[i]++
		}
	}
	product(l.d, l.out, dd, kernel.Epilogue{Mul: xx})
	for i := i0; i < i1; i++ {
		for t := int(s.offsets[i]) - t0; t < int(s.offsets[i+1])-t0; t++ {
			row := dd[t*cols : (t+1)*cols]
			for j := j0; j < j1; j++ {
				var sum float32
				for _, v := range row[int(s.offsets[j])-u0 : int(s.offsets[j+1])-u0] {
					sum += v
				}
				s.k[i*s.n+j] += sum
			}
		}
	}
}

// byParameters adds the pairs of blocks that go by parameters, panel by panel.
func (s *pairs) byParameters(ctx context.Context, progress func(float64)) error {
	first := s.n // of the examples that have such a partner
	for b, from := range s.from {
		if from < len(s.from) {
			first = s.at(b)
			break
		}
	}
	if first == s.n {
		progress(1)
		return nil
	}
	layers := []layer{*s.layer}
	p := &panel{pool: s.pool, offsets: s.offsets[first:], data: make([]float32, (s.n-first)*width(layers))}
	return eachPanel(ctx, layers, progress, func(l *layer, i int) {
		m := p.build(l, i)
		for b := range s.from {
			i0, i1, j := s.at(b), s.at(b+1), s.at(s.from[b])
			if j == s.n {
				continue
			}
			s.pool.Gemm(s.prec, i1-i0, s.n-j, m,
				kernel.Mat{Data: p.data[(i0-first)*m:], Stride: m}, kernel.Mat{Data: p.data[(j-first)*m:], Stride: m, T: true},
				s.k[i0*s.n+j:], s.n, kernel.Epilogue{Accumulate: true})
		}
	})
}
