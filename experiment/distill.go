package experiment

import (
	"context"
	"fmt"
	"path/filepath"

	"mlpfusion/fusion"
	"mlpfusion/kernel"
	"mlpfusion/model"
	"mlpfusion/task"
	"mlpfusion/train"
)

// temperature of distillation.
const temperature = 2

// fineTuned is the original trained as a cell of it would be: the teacher of the
// cells that distil. Its run is kept, so that the next such cell only loads it.
func (m *maker) fineTuned(ctx context.Context, cfg train.Config) (*model.Model, error) {
	name := m.shardName(fmt.Sprintf("teacher_%s_lr%g_seed%d", m.Task, m.LR, m.Seed))
	t := m.trainer(m.d, m.rows, filepath.Join(m.Dir, "runs", name), "teacher", cfg)
	t.Load = func() (*model.Model, error) { return loadModel(m.Source.Path, m.d.head, m.Seed, nil) }
	teacher, _, err := t.Run(ctx)
	return teacher, err
}

// scoreInt8 scores a trained model with its fused blocks' matrices rounded as
// they are when stored as int8; of a model without fused blocks all blocks'.
func (r *Runner) scoreInt8(ctx context.Context, m *model.Model, d *taskData, prec kernel.Precision) ([]task.Metric, error) {
	for _, b := range m.Blocks {
		if _, fused := m.Config.Blocks[b.Name]; !fused && len(m.Config.Blocks) > 0 {
			continue
		}
		for _, l := range b.MLP.Linears() {
			q, scale := fusion.QuantizeInt8(l.W.Data, l.W.Rows, l.W.Cols)
			copy(l.W.Data, fusion.DequantizeInt8(q, scale, l.W.Rows, l.W.Cols))
		}
	}
	return train.NewEvaluator(r.Pool, prec).Score(ctx, m, d.set.Spec, d.dev, func(done, total int) { r.stage("evaluate int8", "example", done, total, "") })
}
