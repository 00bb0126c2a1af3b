package train

import (
	"fmt"
	"testing"

	"mlpfusion/internal/golden"
	"mlpfusion/kernel"
	"mlpfusion/model"
	"mlpfusion/task"
)

// TestAccumulate: a step in several passes, of unlike lengths and numbers of targets, is
// that on all rows at once, up to rounding; of a classifier, language models, experts and
// adapters.
func TestAccumulate(t *testing.T) {
	pool := kernel.NewPool(2)
	defer pool.Close()
	for _, name := range []string{"bert", "bert-regression", "gpt2", "llama", "t5", "lora-bert", "lora-llama-3"} {
		g := openGolden(t, name)
		whole := batch(g, "a")
		in := InputOf(whole)
		var parts []*task.Batch
		for _, cut := range [][2]int{{0, 1}, {1, 4}, {4, 5}} {
			p := in.Slice(cut[0], cut[1])
			b := &task.Batch{IDs: p.IDs, Types: p.Types, Offsets: p.Offsets, Targets: p.Targets, DecoderIDs: p.DecoderIDs, DecoderOffsets: p.DecoderOffsets}
			if whole.Labels != nil {
				b.Labels = whole.Labels[cut[0]:cut[1]]
			}
			parts = append(parts, b)
		}
		var models []*model.Model
		for _, batches := range [][]*task.Batch{{whole}, parts} {
			base, opt := name, model.LoadOptions{}
			if len(name) > 5 && name[:5] == "lora-" {
				base, opt.Adapter = name[5:], openAdapter(t, testdata+"/"+name)
			}
			m := load(t, base, opt)
			s := NewStepper(pool, m, SGDOptimizer, kernel.FP32, 0)
			for step := range 3 {
				loss := s.Accumulate(batches, 0.05)
				if step == 0 {
					golden.NearValue(t, fmt.Sprint(name, ": loss in ", len(batches)), loss, float64(g.Floats("loss")[0]), 1e-4)
				}
			}
			s.Optimizer.Flush()
			models = append(models, m)
		}
		for i, p := range models[1].Params {
			golden.Near(t, name+": "+p.Name, p.Data, models[0].Params[i].Data, 1e-5)
		}
	}
}
