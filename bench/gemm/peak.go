package main

import "mlpfusion/kernel"

// peakFLOPS is the work of one call of peakJob.Do.
const peakFLOPS = 1e5 * peakFLOPSPerStep

// peakJob runs independent multiply-adds in registers: what a product can at
// best reach.
type peakJob struct{}

func (peakJob) Do(int, int) { fmaLoop(1e5) }

func peak(p *kernel.Pool) func() {
	job := kernel.Job(peakJob{})
	return func() { p.Run(p.Workers(), job) }
}
