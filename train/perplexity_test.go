package train

import (
	"context"
	"testing"

	"mlpfusion/internal/golden"
	"mlpfusion/kernel"
	"mlpfusion/model"
	"mlpfusion/task"
)

// TestPerplexity compares windowed perplexities, with and without overlap, with the
// loop of transformers' guide.
func TestPerplexity(t *testing.T) {
	var want struct {
		IDs   []int32 `json:"ids"`
		Cases []struct {
			Length    int     `json:"length"`
			Stride    int     `json:"stride"`
			Predicted int     `json:"predicted"`
			Loss      float64 `json:"loss"`
		} `json:"cases"`
	}
	golden.JSON(t, "testdata/perplexity.json", &want)
	pool := kernel.NewPool(2)
	defer pool.Close()
	m := load(t, "gpt2", model.LoadOptions{Head: model.LanguageModel})
	e := NewEvaluator(pool, kernel.FP32)
	for _, c := range want.Cases {
		sum, predicted, err := e.Likelihood(context.Background(), m, task.Windows(want.IDs, c.Length, c.Stride), nil)
		if err != nil {
			t.Fatal(err)
		}
		if predicted != c.Predicted {
			t.Errorf("windows of %d every %d predict %d tokens, want %d", c.Length, c.Stride, predicted, c.Predicted)
		}
		golden.NearValue(t, "loss", -sum/float64(predicted), c.Loss, 1e-5)
	}
}
