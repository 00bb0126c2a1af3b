package kernel

// gemmPortable computes rows i0 ≤ i < i1 in plain Go. It is the oracle of the
// others.
func gemmPortable(i0, i1 int, g *gemmJob, s *Scratch) {
	sum := grow(&s.c, g.n)
	ars, acs := g.a.Stride, 1
	if g.a.T {
		ars, acs = 1, g.a.Stride
	}
	a, ep := g.a.Data, &g.ep
	for i := i0; i < i1; i++ {
		clear(sum)
		if g.b.T && g.k > 0 {
			for j := range sum {
				var x float32
				row, _ := s.read(&g.b, j, 0, 1, g.k)
				for l := range g.k {
					x += round(g.prec, a[i*ars+l*acs]) * round(g.prec, row[l])
				}
				sum[j] = x
			}
		} else {
			for l := range g.k {
				x := round(g.prec, a[i*ars+l*acs])
				row, _ := s.read(&g.b, l, 0, 1, g.n)
				for j, y := range row[:g.n] {
					sum[j] += x * round(g.prec, y)
				}
			}
		}
		for j, v := range sum {
			o := i*g.ldc + j
			v *= ep.alpha()
			if ep.Accumulate {
				v += g.c[o]
			}
			g.c[o] = ep.apply(v, j, o)
		}
	}
}

// alpha returns the factor of the product.
func (ep *Epilogue) alpha() float32 {
	if ep.Alpha == 0 {
		return 1
	}
	return ep.Alpha
}

// apply returns what becomes of the element v = Alpha·Σ of column j at offset o,
// and writes Deriv.
func (ep *Epilogue) apply(v float32, j, o int) float32 {
	if ep.Bias != nil {
		v += ep.Bias[j]
	}
	if ep.Add != nil {
		v += ep.Add[o]
	}
	scale := float32(1)
	if ep.Scale != nil {
		scale = ep.Scale[j]
	}
	f, d := ep.Act.Eval(v)
	if ep.Deriv != nil {
		ep.Deriv[o] = scale * d
	}
	v = scale * f
	if ep.Mul != nil {
		v *= ep.Mul[o]
	}
	return v
}
