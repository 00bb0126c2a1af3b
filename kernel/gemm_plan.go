package kernel

// plan chooses the implementation and cuts C into blocks for the given number of
// workers. The cut does not change the result.
func (g *gemmJob) plan(workers int) {
	if !g.choose() {
		return
	}
	mr, nr, nc := g.kernel.mr, g.kernel.nr, g.strip()
	if g.m >= manyRows && (g.packed != nil || g.sharesB()) {
		g.rows, g.cols, g.strips = min(part(g.m, 8*workers, mr), g.kernel.mc), g.n, 1
		return
	}
	if workers == 1 {
		g.rows, g.cols = g.m, blocks(g.n, nc, nr)
		g.strips = (g.n + g.cols - 1) / g.cols
		return
	}
	const perWorker = 4 // more blocks than that are not worth their overhead
	best := 0.0
	for down := 1; down <= perWorker*workers; down++ {
		rows := part(g.m, down, mr)
		for across := max(1, (g.n+nc-1)/nc); ; across++ {
			cols := part(g.n, across, nr)
			strips := (g.n + cols - 1) / cols
			tasks := (g.m + rows - 1) / rows * strips
			// At the end some workers wait for others, on average a part of a block.
			cost := g.cost(rows, cols) * (float64((tasks+workers-1)/workers) + 0.2)
			if best == 0 || cost < best {
				best = cost
				g.rows, g.cols, g.strips = rows, cols, strips
			}
			if cols == nr || tasks >= perWorker*workers {
				break
			}
		}
		if rows == mr {
			break
		}
	}
}

// planParts is plan for a product that other work goes beside: it is cut into so
// many blocks at least, where it is large enough, with the least work in all.
func (g *gemmJob) planParts(parts int) {
	if !g.choose() {
		return
	}
	mr, nr, nc := g.kernel.mr, g.kernel.nr, g.strip()
	best := 0.0
	for down := 1; down <= max(1, parts); down++ {
		rows := part(g.m, down, mr)
		high := (g.m + rows - 1) / rows
		across := max(1, (g.n+nc-1)/nc, (parts+high-1)/high)
		cols := part(g.n, across, nr)
		strips := (g.n + cols - 1) / cols
		if cost := g.cost(rows, cols) * float64(high*strips); best == 0 || cost < best {
			best = cost
			g.rows, g.cols, g.strips = rows, cols, strips
		}
		if rows == mr {
			break
		}
	}
}

// choose sets the implementation, and the blocks of the portable one, for which
// there is nothing to plan.
func (g *gemmJob) choose() bool {
	if g.prec == INT8 && g.packed == nil {
		g.prec = FP32
	}
	g.kernel = gemms[g.prec].use
	if g.packed != nil {
		g.kernel = g.packed.kernel
	}
	if g.kernel == nil {
		g.rows, g.cols, g.strips = 32, g.n, 1
	}
	return g.kernel != nil
}

// manyRows is the number from which B is packed once, before the blocks begin. The
// blocks then are ranges of rows: each copies its rows of A for itself, a part that
// stays in its cache. Of fewer rows packing B is a larger share, and it pays to
// use what was packed at once.
const manyRows = 1024

// sharesB reports whether B is to be packed before the blocks begin. One too large
// for the last-level cache is not.
func (g *gemmJob) sharesB() bool {
	return g.kernel != nil && g.packed == nil && g.pool != nil && g.m >= manyRows && g.k > 0 && g.n*g.k <= 1<<23
}

// strip returns the most columns of a block. For a single block of rows what is
// packed of B is used once, and has to be in the second-level cache still.
func (g *gemmJob) strip() int {
	t := g.kernel
	if g.m > t.mc || g.m <= t.few || g.packed != nil || g.k == 0 {
		return t.nc
	}
	const words = 150 << 10
	return min(t.nc, max(1, words/t.words(min(g.k, t.kc))/t.nr)*t.nr)
}

// cost is what a block of rows×cols costs. The unit is one product of the
// microkernel, a sixteenth of a cycle, or a thirty-second with pairs. Fetching an
// element of A takes a quarter of a cycle, packing one of B a whole one, as it
// comes from far away, and 64 elements more a row, as each is another place; the
// end of a row of the block takes some 40 cycles for all of k.
func (g *gemmJob) cost(rows, cols int) float64 {
	a, b, end := 4.0, 16.0, 640.0
	if g.kernel.pairs {
		end = 1280
	}
	if g.packed != nil {
		b = 0
	}
	return float64(rows)*(float64(cols)+a+end/float64(g.k+1)) + b*float64(cols+64)
}

// part returns the size of one of n's equal parts, rounded up to the unit.
func part(n, parts, unit int) int {
	return max(unit, ((n+parts-1)/parts+unit-1)/unit*unit)
}
