package generate

import (
	"cmp"
	"math"
	"slices"
)

// draw returns the token that the number u in [0, 1) selects, when tokens have the
// probabilities softmax(logits/Temperature) restricted by TopK and then TopP, as
// transformers applies them. memory is used again from call to call.
func (o *Options) draw(logits []float32, u float64, memory []candidate) (int32, []candidate) {
	order := memory[:0]
	for id, x := range logits {
		if x > float32(math.Inf(-1)) {
			order = append(order, candidate{int32(id), x})
		}
	}
	if len(order) == 0 {
		return 0, order
	}
	whole := order
	if o.TopK > 0 || o.TopP > 0 && o.TopP < 1 {
		slices.SortFunc(order, func(a, b candidate) int {
			if c := cmp.Compare(b.score, a.score); c != 0 {
				return c
			}
			return cmp.Compare(a.id, b.id)
		})
		if o.TopK > 0 && o.TopK < len(order) {
			n := o.TopK // tokens as probable as the last are kept
			for n < len(order) && order[n].score == order[o.TopK-1].score {
				n++
			}
			order = order[:n]
		}
	}
	temperature := o.Temperature
	if temperature == 0 {
		temperature = 1
	}
	top := slices.MaxFunc(order, func(a, b candidate) int { return cmp.Compare(a.score, b.score) }).score
	weight := func(c candidate) float64 { return math.Exp(float64(c.score-top) / temperature) }
	sum := 0.0
	for _, c := range order {
		sum += weight(c)
	}
	if o.TopP > 0 && o.TopP < 1 {
		// The least probable go as long as they have no more than 1 − TopP together.
		rest := 0.0
		for len(order) > 1 {
			w := weight(order[len(order)-1])
			if rest+w > (1-o.TopP)*sum {
				break
			}
			rest += w
			order = order[:len(order)-1]
		}
		sum -= rest
	}
	u *= sum
	for _, c := range order[:len(order)-1] {
		if u -= weight(c); u < 0 {
			return c.id, whole
		}
	}
	return order[len(order)-1].id, whole
}
