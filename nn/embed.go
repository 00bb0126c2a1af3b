package nn

import "mlpfusion/kernel"

// MaxTables is the largest number of embedding tables one Embed can sum.
const MaxTables = 3

type embed struct {
	t      *Tape
	tables []*Weight
	ids    [MaxTables][]int32
	y      *Tensor
}

// Embed returns, for each token i, the sum of row ids[k][i] of tables[k], as
// BERT sums word, position and type embeddings: (tokens × hidden). Ids must lie
// inside their tables.
func (t *Tape) Embed(tables []*Weight, ids [MaxTables][]int32) *Tensor {
	y := t.New(len(ids[0]), tables[0].Cols)
	y.noGrad = true
	for _, w := range tables {
		y.noGrad = y.noGrad && w.Frozen
	}
	op := t.embeds.next()
	*op = embed{t, tables, ids, y}
	t.workspace(y.Cols)
	t.Pool.Run(rowChunks(y.Rows), (*embedForward)(op))
	t.record(op)
	return y
}

type embedForward embed

func (o *embedForward) Do(i, worker int) {
	c := o.y.Cols
	tmp := o.t.work[worker]
	for r := i * rowChunk; r < min(o.y.Rows, (i+1)*rowChunk); r++ {
		y := o.y.Data[r*c : (r+1)*c]
		for k, w := range o.tables {
			row := w.row(int(o.ids[k][r]), tmp)
			if k == 0 {
				copy(y, row)
			} else {
				kernel.Axpy(1, row, y)
			}
		}
	}
}

func (o *embed) backward(t *Tape) {
	if o.y.Grad == nil || o.y.noGrad {
		return
	}
	for k, w := range o.tables {
		if w.Frozen {
			continue
		}
		if w.Touched == nil { // a tied table, which the head's gradient fills
			if grad, add := w.gradient(); !add {
				clear(grad)
			}
			continue
		}
		w.gradient()
		for _, id := range o.ids[k] {
			w.Touched.Add(id)
		}
	}
	// By columns, so that a row met twice is summed in the tokens' order.
	t.Pool.Run((o.y.Cols+columnChunk-1)/columnChunk, (*embedBackward)(o))
	t.release(o.y)
}

type embedBackward embed

func (o *embedBackward) Do(i, _ int) {
	c := o.y.Cols
	from, to := i*columnChunk, min(c, (i+1)*columnChunk)
	for k, w := range o.tables {
		if w.Frozen {
			continue
		}
		for r, id := range o.ids[k] {
			kernel.Axpy(1, o.y.Grad[r*c+from:r*c+to], w.Grad[int(id)*c+from:int(id)*c+to])
		}
	}
}
