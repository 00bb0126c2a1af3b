package kernel

// maxStrip bounds a block's columns, so that its packed part of B (a block of k
// times that) stays in the second-level cache.
const maxStrip = 256

// plan chooses the implementation and cuts C into blocks for the given number of
// workers. The cut does not change the result.
func (g *gemmJob) plan(workers int) {
	g.kernel = gemmFor[g.prec][isa]
	if g.packed != nil {
		g.kernel = g.packed.kernel
	}
	if g.kernel == nil {
		g.rows, g.cols, g.strips = 32, g.n, 1
		return
	}
	mr, nr := g.kernel.mr, g.kernel.nr
	if workers == 1 {
		g.rows, g.cols = g.m, blocks(g.n, maxStrip, nr)
		g.strips = (g.n + g.cols - 1) / g.cols
		return
	}
	const perWorker = 8 // more blocks than that are not worth their overhead
	best := 0.0
	a := 8
	if g.a.T {
		a = 16
	}
	for down := 1; down <= perWorker*workers; down++ {
		rows := part(g.m, down, mr)
		for across := max(1, (g.n+maxStrip-1)/maxStrip); ; across++ {
			cols := part(g.n, across, nr)
			strips := (g.n + cols - 1) / cols
			tasks := (g.m + rows - 1) / rows * strips
			// The unit is one product of the microkernel, a sixteenth of a cycle.
			// Fetching an element of A takes about half a cycle, packing it as
			// much again, and so does packing one of B; the end of a row of the
			// block takes some 40 cycles for all of k.
			task := float64(rows) * (float64(cols+a) + 640/float64(g.k+1))
			if g.packed == nil {
				task += float64(8 * cols)
			}
			// At the end some workers wait for others, on average a part of a block.
			cost := task * (float64((tasks+workers-1)/workers) + 0.4)
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

// part returns the size of one of n's equal parts, rounded up to the unit.
func part(n, parts, unit int) int {
	return max(unit, ((n+parts-1)/parts+unit-1)/unit*unit)
}
