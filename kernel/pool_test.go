package kernel

import (
	"runtime"
	"sync/atomic"
	"testing"
)

type countJob struct {
	seen []atomic.Int32
	busy []atomic.Int32
	t    *testing.T
}

func (c *countJob) Do(i, w int) {
	if c.busy[w].Add(1) != 1 {
		c.t.Error("one worker is in two iterations at once")
	}
	c.seen[i].Add(1)
	c.busy[w].Add(-1)
}

// TestPoolRunsEach checks that every iteration runs exactly once, over many
// short Runs, so that workers that wake late meet later Runs.
func TestPoolRunsEach(t *testing.T) {
	for _, workers := range []int{1, 2, 3, 8} {
		p := NewPool(workers)
		for run := range 2000 {
			n := run % 11
			j := &countJob{make([]atomic.Int32, n), make([]atomic.Int32, workers), t}
			p.Run(n, j)
			for i := range j.seen {
				if c := j.seen[i].Load(); c != 1 {
					t.Fatalf("%d workers, run %d: iteration %d of %d ran %d times", workers, run, i, n, c)
				}
			}
		}
		p.Close()
	}
}

// TestPoolWorkers: unless told, a pool has as many workers as Go may use processors; Go
// heeds a container's quota.
func TestPoolWorkers(t *testing.T) {
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(3))
	p := NewPool(0)
	defer p.Close()
	if p.Workers() != 3 {
		t.Errorf("%d workers, want 3", p.Workers())
	}
}
