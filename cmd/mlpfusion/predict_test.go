package main

import (
	"encoding/json"
	"math"
	"testing"

	"mlpfusion/internal/golden"
)

func TestProbabilities(t *testing.T) {
	logits := []float32{0, float32(math.Log(3)), -100}
	golden.Near(t, "softmax", softmax(logits), []float64{0.25, 0.75, 0}, 1e-7)
	golden.Near(t, "sigmoids", sigmoids(logits), []float64{0.5, 0.75, 0}, 1e-7)
}

func TestLabelScores(t *testing.T) {
	got, err := json.Marshal(labelScores{{"b \"c\"", 0.5}, {"a", 1e-9}})
	if want := `{"b \"c\"":0.5,"a":1e-9}`; err != nil || string(got) != want {
		t.Errorf("got %s (%v), expected %s", got, err, want)
	}
}
