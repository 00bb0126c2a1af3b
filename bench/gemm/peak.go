package main

import "mlpfusion/kernel"

const (
	peakLanes = 96                  // independent multiply-adds of a step, whatever the registers
	peakFLOPS = 1e5 * 2 * peakLanes // the work of one peakJob.Do
)

// peakJob runs independent multiply-adds in registers: what a product can at
// best reach.
type peakJob struct{}

func (peakJob) Do(int, int) { fmaLoop(1e5) }

func peak(p *kernel.Pool) func() {
	job := kernel.Job(peakJob{})
	return func() { p.Run(p.Workers(), job) }
}

// fmaLoopGo does n steps in plain Go, eight sums at a time.
func fmaLoopGo(n int) {
	var a, b, c, d, e, f, g, h float32
	const x = 1.0000001
	for range n * (peakLanes / 8) {
		a, b, c, d = a*x+x, b*x+x, c*x+x, d*x+x
		e, f, g, h = e*x+x, f*x+x, g*x+x, h*x+x
	}
	if a+b+c+d+e+f+g+h < 0 { // never; but the compiler does not know
		panic("peak: sums of positive numbers are negative")
	}
}
