// Package stream measures how fast a machine reads memory: the limit of what reads all
// of a model's weights for each token.
package stream

import (
	"time"

	"mlpfusion/kernel"
)

const (
	size = 256 << 20 / 4 // floats of a worker, more than its caches hold
	part = 1 << 18       // read at a time
	span = 300 * time.Millisecond
)

// Peak returns the fastest pass over memory in GB/s, of that many threads together.
func Peak(threads int) float64 {
	p := kernel.NewPool(threads)
	defer p.Close()
	j := make(job, threads)
	for i := range j {
		j[i] = kernel.LargePages(size)
		for k := range j[i] {
			j[i][k] = 1
		}
	}
	p.Run(threads, j)
	var fastest time.Duration
	for start := time.Now(); fastest == 0 || time.Since(start) < span; {
		t := time.Now()
		p.Run(threads, j)
		if d := time.Since(t); fastest == 0 || d < fastest {
			fastest = d
		}
	}
	return float64(threads) * size * 4 / fastest.Seconds() / 1e9
}

// job reads a worker's memory.
type job [][]float32

func (j job) Do(i, _ int) {
	for x := j[i]; len(x) > 0; x = x[part:] {
		kernel.Dot(x[:part], x[:part])
	}
}
