package kmeans

import (
	"os"
	"strings"
	"testing"

	"mlpfusion/checkpoint"
	"mlpfusion/internal/golden"
)

// block3 is the sub-MLP matrix of MiniLM's block 3: rows (W1_i, b1_i, W2_:,i).
func block3(t *testing.T) (x []float32, n, d int) {
	dir := os.Getenv("MLPFUSION_MINILM")
	if dir == "" {
		t.Skip("MLPFUSION_MINILM is not set")
	}
	const p, units = 384, 1536
	r, err := checkpoint.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = r.Close() }()
	read := func(name string, elements int) []float32 {
		for _, full := range r.Names() {
			if strings.HasSuffix(full, "encoder.layer.3."+name) {
				to := make([]float32, elements)
				tensor, _ := r.Tensor(full)
				if err := tensor.ReadFloat32(to); err != nil {
					t.Fatal(err)
				}
				return to
			}
		}
		t.Fatalf("%s has no %s", dir, name)
		return nil
	}
	w1, b1, w2 := read("intermediate.dense.weight", units*p), read("intermediate.dense.bias", units), read("output.dense.weight", p*units)
	for i := range units {
		x = append(append(x, w1[i*p:(i+1)*p]...), b1[i])
		for j := range p {
			x = append(x, w2[j*units+i])
		}
	}
	return x, units, 2*p + 1
}

// On real weights, against other programs on the same matrix: scikit-learn's
// KMeans with 30 starts reaches 2192.2, scipy's Ward 2069.7, and Ward with
// Hartigan's moves in a prototype 2049.8.
func TestMiniLM(t *testing.T) {
	x, n, d := block3(t)
	inertia := map[Algorithm]float64{}
	for _, a := range []Algorithm{AlgorithmKMeans, AlgorithmWard, AlgorithmBest} {
		r, err := Cluster(x, n, d, Options{K: n / 4, Algorithm: a, Restarts: 10, Pool: pools[1]})
		if err != nil {
			t.Fatal(err)
		}
		inertia[a] = r.Inertia
	}
	golden.NearValue(t, "inertia of kmeans", inertia[AlgorithmKMeans], 2192.2, 0.003*2192.2)
	golden.NearValue(t, "inertia of ward", inertia[AlgorithmWard], 2069.7, 0.1)
	if v := inertia[AlgorithmBest]; !(v < 2049.8) {
		t.Errorf("inertia of best is %g, expected less than 2049.8", v)
	}
}
