package nn

import (
	"testing"

	"mlpfusion/kernel"
)

// TestGradientMemory: a weight has a gradient once a backward pass has reached it, a
// view of it and a parameter in it share that, and what is frozen has none.
func TestGradientMemory(t *testing.T) {
	pool := kernel.NewPool(1)
	defer pool.Close()
	tape := NewTape(pool)
	l := &Linear{W: NewWeight(4, 3), B: NewWeight(1, 4)}
	l.B.Frozen = true
	var p Param
	p.Of(l.W, 6, 12)
	part := l.View(2, 4)
	run := func() {
		x := tape.New(2, 3)
		for i := range x.Data {
			x.Data[i] = float32(i + 1)
		}
		y := tape.Linear(x, part, kernel.Identity, nil)
		y.Grad = []float32{1, 2, 3, 4}
		tape.Backward()
	}
	run()
	if l.W.Grad != nil {
		t.Fatal("a pass that trains nothing has made a gradient")
	}
	tape.Train = true
	run()
	switch {
	case l.B.Grad != nil || part.B.Grad != nil:
		t.Error("a frozen bias has a gradient")
	case len(l.W.Grad) != 12 || &p.Grad()[0] != &l.W.Grad[6] || &part.W.Grad[0] != &l.W.Grad[6]:
		t.Error("the gradients of a weight, its view and a parameter lie apart")
	case l.W.Grad[6] != 1*1+3*4 || l.W.Grad[0] != 0:
		t.Errorf("gradient %v", l.W.Grad)
	}
}
