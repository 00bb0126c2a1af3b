package nn

// squaredDistance is SquaredDistance at work.
type squaredDistance struct {
	x, target, grad []float32
	cols            int
	rows            []float32 // weights
	add             bool
	factor          float32 // of the difference in the gradient
	sums            []float64
}

// SquaredDistance returns weight times the squared difference of x and target, both
// (tokens × hidden), summed over the hidden size and averaged over tokens, and
// while training adds its gradient to x's. It is called between the forward
// pass and Backward, on as many tensors as are to be matched: the loss of
// layer-wise task-specific tuning (docs/method.md). The target is a constant. rows are
// weights of the tokens' squared differences; nil: all count alike.
func (t *Tape) SquaredDistance(x, target *Tensor, weight float64, rows []float32) float64 {
	if x.Rows != target.Rows || x.Cols != target.Cols {
		panic("nn: SquaredDistance of tensors of two shapes")
	}
	m := &t.distance
	m.x, m.target, m.grad = x.Data, target.Data, nil
	m.cols, m.rows = x.Cols, rows
	weight /= float64(x.Rows)
	if t.Train && !x.noGrad {
		m.grad, m.add = t.gradOf(x)
		m.factor = float32(t.share() * 2 * weight)
	}
	n := chunks(len(x.Data))
	for len(m.sums) < n {
		m.sums = append(m.sums, 0)
	}
	t.Pool.Run(n, m)
	var sum float64
	for _, s := range m.sums[:n] {
		sum += s
	}
	return weight * sum
}

func (m *squaredDistance) Do(i, _ int) {
	a, b := chunkOf(i, len(m.x))
	var sum float64
	for j := a; j < b; j++ {
		d, w := m.x[j]-m.target[j], float32(1)
		if m.rows != nil {
			w = m.rows[j/m.cols]
		}
		sum += float64(w) * float64(d) * float64(d)
		if m.grad == nil {
			continue
		}
		if m.add {
			m.grad[j] += m.factor * w * d
		} else {
			m.grad[j] = m.factor * w * d
		}
	}
	m.sums[i] = sum
}
