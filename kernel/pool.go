package kernel

import (
	"runtime"
	"sync/atomic"
)

// Job is a loop whose iterations may run at the same time. Do handles
// iteration i on worker w, 0 ≤ w < Pool.Workers(); w selects scratch memory and
// must not influence the result.
type Job interface {
	Do(i, w int)
}

// Pool runs Jobs on a fixed set of workers. The goroutine that calls Run is
// worker 0. A Pool serves one Run at a time and Run must not be called from
// within a Job.
type Pool struct {
	workers int
	wake    []chan struct{}
	job     Job
	shares  []share       // what is left to each worker
	gate    atomic.Int64  // the workers inside; plus gateOpen while a Run takes them in, plus asleep
	empty   chan struct{} // told by the last one to leave when Run is asleep
	spins   int           // how often to look again before going to sleep
	scratch []*Scratch
	gemm    gemmJob
	group   gemmGroup
	pack    packJob
	shared  Packed    // a B that all blocks of a product read
	copied  []float32 // an A
	shelf   shelf     // of PackB
	idle    bool      // see NewIdlePool
}

// NewPool starts a pool of the given number of workers, or of GOMAXPROCS when
// workers is 0.
func NewPool(workers int) *Pool {
	if workers <= 0 {
		workers = runtime.GOMAXPROCS(0)
	}
	p := &Pool{workers: workers, wake: make([]chan struct{}, workers), shares: make([]share, workers), empty: make(chan struct{}, 1), scratch: make([]*Scratch, workers)}
	if workers <= runtime.GOMAXPROCS(0) {
		p.spins = maxSpins
	}
	for w := range workers {
		p.scratch[w] = new(Scratch)
		if w == 0 {
			continue
		}
		p.wake[w] = make(chan struct{}, 1)
		go p.serve(w)
	}
	return p
}

// NewIdlePool returns a pool of that many workers whose Run does nothing: what is done on
// it takes none of the time that the work takes, and its Bytes, and those of a tape, are
// known beforehand.
func NewIdlePool(workers int) *Pool {
	p := &Pool{workers: workers, scratch: make([]*Scratch, workers), idle: true}
	for w := range workers {
		p.scratch[w] = new(Scratch)
	}
	return p
}

// Idle tells whether it is a pool of NewIdlePool.
func (p *Pool) Idle() bool { return p.idle }

// Bytes is the memory that the products done so far have made and will use again, but for
// what is each worker's own.
func (p *Pool) Bytes() int64 { return 4 * int64(cap(p.shared.data)+cap(p.copied)) }

// Workers returns the number of workers.
func (p *Pool) Workers() int { return p.workers }

// Scratch returns the private memory of worker w.
func (p *Pool) Scratch(w int) *Scratch { return p.scratch[w] }

// Close ends the workers. The pool must not be used afterwards.
func (p *Pool) Close() {
	for _, c := range p.wake[1:] {
		close(c)
	}
}

const (
	gateOpen = 1 << 32
	asleep   = 1 << 33

	// maxSpins is about a tenth of a millisecond. Waking a sleeping thread
	// takes half of that, and a step consists of hundreds of Runs that follow
	// each other at once: workers stay awake between them, and sleep when the
	// program does something else.
	maxSpins = 1000
)

// Run calls j.Do for i = 0 … n-1 and returns when all have returned. Each worker
// begins with its own share, the w-th part of the iterations in order, and then helps
// where work is left: what it wrote in one Run it finds in its own cache in the next.
//
// Run waits for workers that have begun, never for one to begin: on a busy
// machine a worker may wake when all is done, and then finds the gate closed.
func (p *Pool) Run(n int, j Job) {
	if n <= 0 || p.idle {
		return
	}
	p.job = j
	active := min(p.workers, n)
	for w := range active {
		p.shares[w].set(w*n/active, (w+1)*n/active)
	}
	if n > 1 {
		p.gate.Store(gateOpen)
		for w := 1; w < active; w++ {
			select {
			case p.wake[w] <- struct{}{}:
			default: // an earlier call has not reached it yet
			}
		}
	}
	p.work(0)
	if n > 1 {
		p.close()
	}
	p.job = nil
}

// close closes the gate and returns when nobody is inside.
func (p *Pool) close() {
	g := p.gate.Add(-gateOpen)
	for i := 0; g > 0 && i < p.spins; i++ {
		relax()
		g = p.gate.Load()
	}
	for g > 0 {
		if p.gate.CompareAndSwap(g, g|asleep) {
			<-p.empty
			p.gate.Store(0)
			return
		}
		g = p.gate.Load()
	}
}

// serve is worker w's life: it joins each Run, and between them looks for the
// next for a while before it sleeps.
func (p *Pool) serve(w int) {
	for range p.wake[w] {
		for i := 0; i <= p.spins; i++ {
			if p.help(w) {
				i = 0
			}
			relax()
		}
	}
}

// help joins the Run under way, if there is one.
func (p *Pool) help(w int) bool {
	for {
		g := p.gate.Load()
		if g&gateOpen == 0 {
			return false
		}
		if p.gate.CompareAndSwap(g, g+1) {
			break
		}
	}
	p.work(w)
	if p.gate.Add(-1) == asleep {
		p.empty <- struct{}{}
	}
	return true
}

func (p *Pool) work(w int) {
	for d := range p.shares {
		s := &p.shares[(w+d)%len(p.shares)]
		for i, ok := s.take(d == 0); ok; i, ok = s.take(d == 0) {
			p.job.Do(i, w)
		}
	}
}

// share is a range of iterations, of which its owner takes the first and others the
// last. It fills a cache line and the one fetched with it, as its owner keeps writing.
type share struct {
	ends atomic.Uint64 // from in the upper half, to in the lower one
	_    [120]byte
}

func (s *share) set(from, to int) { s.ends.Store(uint64(from)<<32 | uint64(to)) }

// left tells whether there are iterations left.
func (s *share) left() bool {
	ends := s.ends.Load()
	return ends>>32 < uint64(uint32(ends))
}

// take takes the first or the last iteration left, if there is one.
func (s *share) take(first bool) (i int, ok bool) {
	for {
		ends := s.ends.Load()
		from, to := int(ends>>32), int(uint32(ends))
		switch {
		case from >= to:
			return 0, false
		case first && s.ends.CompareAndSwap(ends, ends+1<<32):
			return from, true
		case !first && s.ends.CompareAndSwap(ends, ends-1):
			return to - 1, true
		}
	}
}

// Scratch is memory that one worker reuses from call to call.
type Scratch struct {
	a, b, c []float32
	wide    []float32 // rows of bfloat16, see read
	copied  []float32
	gemm    gemmJob
	args    tileArgs
	rows    [16]*float32
	temp    [32 * 32]float32
}

// grow returns (*s)[:n], enlarged when needed; the contents are undefined.
func grow(s *[]float32, n int) []float32 {
	if cap(*s) < n {
		*s = make([]float32, n+n/4)
	}
	return (*s)[:n]
}
