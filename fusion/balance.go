package fusion

import (
	"math"

	"mlpfusion/kernel"
)

// balance makes P_k what unit k gives of the output, as a share of the original's
// width units and at least 1: ‖w2_k‖·‖w1_k‖ by the weights, P folded in. The function
// stays the same, W2~ being divided by the new P, and fine-tuning moves all units
// at the same pace for their size. The sizes of clusters say little of units that
// were chosen and fitted.
func (b *Block) balance(width int) {
	before := b.Scale
	b.Fold()
	share := make([]float64, b.Width)
	for r := range b.Hidden {
		for k, v := range b.Down[r*b.Width : (r+1)*b.Width] {
			share[k] += float64(v) * float64(v)
		}
	}
	var sum float64
	for k := range share {
		for _, w := range [][]float32{b.Up, b.Gate} {
			if w != nil {
				share[k] *= kernel.SumSquares(w[k*b.Hidden : (k+1)*b.Hidden])
			}
		}
		share[k] = math.Sqrt(share[k])
		sum += share[k]
	}
	if !(sum > 0) || math.IsInf(sum, 1) { // a block that gives nothing
		b.unfold(before)
		return
	}
	p := make([]float32, b.Width)
	for k := range p {
		p[k] = max(1, float32(math.Round(float64(width)*share[k]/sum)))
	}
	b.unfold(p)
}
