// Package fma measures how many multiply-adds a machine does at best, in
// registers: the limit of every matrix product.
package fma

import (
	"time"

	"mlpfusion/kernel"
)

const (
	lanes = 96                     // independent multiply-adds of a step, whatever the registers
	steps = 100_000                // of a job
	flops = 2.0 * lanes * steps    // of a job
	span  = 300 * time.Millisecond // of a measurement: a worker may wake on the processor of another at first
)

// Peak returns the fastest run of 0.3 seconds, in GFLOPS of that many
// threads, with the instruction that the kernels of that precision use: where they
// multiply bfloat16 in float32, float32's. Of AMX it is not known: 0.
func Peak(prec kernel.Precision, threads int) float64 {
	p := kernel.NewPool(threads)
	defer p.Close()
	j := kernel.Job(job(floats))
	if prec == kernel.BF16 && kernel.FastBF16() {
		if kernel.Has(kernel.AMX) {
			return 0
		}
		j = job(pairs)
	}
	p.Run(threads, j)
	fastest := span
	for start := time.Now(); time.Since(start) < span; {
		t := time.Now()
		p.Run(threads, j)
		fastest = min(fastest, time.Since(t))
	}
	return float64(threads) * flops / fastest.Seconds() / 1e9
}

// job is a loop of the given number of steps.
type job func(n int)

func (f job) Do(int, int) { f(steps) }

// floatsGo does n steps in plain Go, eight sums at a time.
func floatsGo(n int) {
	var a, b, c, d, e, f, g, h float32
	const x = 1.0000001
	for range n * (lanes / 8) {
		a, b, c, d = a*x+x, b*x+x, c*x+x, d*x+x
		e, f, g, h = e*x+x, f*x+x, g*x+x, h*x+x
	}
	if a+b+c+d+e+f+g+h < 0 { // never; but the compiler does not know
		panic("fma: sums of positive numbers are negative")
	}
}
