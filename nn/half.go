package nn

import "mlpfusion/kernel"

// Halve rounds the values to bfloat16 and keeps those only, in half the memory: of a
// matrix or table that is not trained from now on. Linear, Embed, AttendOne,
// VocabularyLoss and Pack read it; what they multiply by is made float32 for the while.
func (w *Weight) Halve() {
	w.Half = make([]uint16, len(w.Data))
	for i, v := range w.Data {
		w.Half[i] = kernel.ToBF16(v)
	}
	w.Data, w.Frozen = nil, true
}

// values returns w's values, good until doneValues.
func (t *Tape) values(w *Weight) []float32 {
	if w.Half == nil {
		return w.Data
	}
	data := t.grads.get(len(w.Half))
	t.widened = append(t.widened, data)
	t.widen = widen{data, w.Half}
	t.Pool.Run(chunks(len(data)), &t.widen)
	return data
}

// doneValues takes back what values has made.
func (t *Tape) doneValues() {
	for i, data := range t.widened {
		t.grads.put(data)
		t.widened[i] = nil
	}
	t.widened = t.widened[:0]
}

// widen makes float32 of bfloat16.
type widen struct {
	dst []float32
	src []uint16
}

func (w *widen) Do(i, _ int) {
	from, to := chunkOf(i, len(w.dst))
	widenRow(w.dst[from:to], w.src[from:to])
}

func widenRow(dst []float32, src []uint16) {
	for i, v := range src {
		dst[i] = kernel.FromBF16(v)
	}
}
