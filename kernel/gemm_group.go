package kernel

// Product is one of the products that GemmGroup computes together; its fields
// are Gemm's arguments.
type Product struct {
	M, N, K  int
	A, B     Mat
	Packed   *Packed // B, where it is packed; the product then has its precision
	C        []float32
	LDC      int
	Epilogue Epilogue
}

// GemmGroup computes products that do not depend on each other, each as Gemm
// does, as one loop over all their blocks: the workers meet once, and where there
// are many products each worker takes whole ones. For the experts of a mixture,
// whose products are small.
func (p *Pool) GemmGroup(prec Precision, products []Product) {
	g := &p.group
	var all float64
	for i := range products {
		all += products[i].work()
	}
	g.jobs, g.ends = g.jobs[:0], g.ends[:0]
	tasks := 0
	for i := range products {
		x := &products[i]
		job := gemmJob{prec: prec, m: x.M, n: x.N, k: x.K, a: x.A, b: x.B, c: x.C, ldc: x.LDC, ep: x.Epilogue, pool: p}
		b := &x.B
		if w := x.Packed; w != nil {
			job.prec, job.packed, b = w.prec, w, nil
			if w.kernel == nil {
				job.b = Mat{Data: w.data, Stride: w.n}
			}
		}
		checkGemm(x.M, x.N, x.K, &x.A, b, x.C, x.LDC, &x.Epilogue)
		if len(products) == 1 {
			p.gemm = job
			p.gemm.run()
			p.gemm = gemmJob{}
			return
		}
		job.planParts(int(groupTasks*float64(p.workers)*x.work()/all + 0.5))
		tasks += job.tasks()
		g.jobs, g.ends = append(g.jobs, job), append(g.ends, tasks)
	}
	g.copyAll()
	p.Run(tasks, g)
	clear(g.jobs)
}

// groupTasks is the number of blocks for each worker that a group is cut into at
// the least. Fewer would let workers wait for the last; of more, each packs again
// what another has packed.
const groupTasks = 4

func (x *Product) work() float64 { return float64(x.M) * float64(x.N) * float64(x.K+8) }

// gemmGroup is the products under way.
type gemmGroup struct {
	jobs   []gemmJob
	ends   []int       // of each job's tasks among all
	copies [][]float32 // of each job's A, see copyWhole
	rows   []int       // ends of each job's iterations of copyJob among all
}

// Do computes a block.
func (g *gemmGroup) Do(i, w int) {
	job, i := find(g.ends, i)
	g.jobs[job].Do(i, w)
}

// find returns whose iteration i is when each ends where ends says, and which of
// its own.
func find(ends []int, i int) (job, own int) {
	for ends[job] <= i {
		job++
	}
	if job > 0 {
		i -= ends[job-1]
	}
	return job, i
}

// copyAll copies every A that several blocks need a copy of.
func (g *gemmGroup) copyAll() {
	for len(g.copies) < len(g.jobs) {
		g.copies = append(g.copies, nil)
	}
	g.rows = g.rows[:0]
	tasks := 0
	var pool *Pool
	for i := range g.jobs {
		job := &g.jobs[i]
		pool = job.pool
		if job.copyWhole(&g.copies[i]) {
			tasks += job.copyTasks()
		}
		g.rows = append(g.rows, tasks)
	}
	if tasks > 0 {
		pool.Run(tasks, (*copyGroup)(g))
	}
}

type copyGroup gemmGroup

func (g *copyGroup) Do(i, w int) {
	job, i := find(g.rows, i)
	(*copyJob)(&g.jobs[job]).Do(i, w)
}
