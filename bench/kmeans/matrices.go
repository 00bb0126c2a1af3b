package main

import (
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"strings"

	"mlpfusion/checkpoint"
)

// matrix is rows×cols values, row-major.
type matrix struct {
	name       string
	x          []float32
	rows, cols int
}

// blocks reads the sub-MLP matrices of MiniLM's six blocks: row i is row i of W1,
// b1_i, column i of W2.
func blocks(model string) ([]matrix, error) {
	const p, units = 384, 1536
	r, err := checkpoint.Open(model)
	if err != nil {
		return nil, err
	}
	defer func() { _ = r.Close() }()
	read := func(name string, elements int) ([]float32, error) {
		at := slices.IndexFunc(r.Names(), func(s string) bool { return strings.HasSuffix(s, name) })
		if at < 0 {
			return nil, fmt.Errorf("%s: no tensor ends in %s", model, name)
		}
		t, _ := r.Tensor(r.Names()[at])
		if t.Elements() != elements {
			return nil, fmt.Errorf("%s: %s has shape %v, expected %d elements", t.File, t.Name, t.Shape, elements)
		}
		to := make([]float32, elements)
		return to, t.ReadFloat32(to)
	}
	var all []matrix
	for layer := range 6 {
		prefix := fmt.Sprintf("encoder.layer.%d.", layer)
		w1, err := read(prefix+"intermediate.dense.weight", units*p)
		if err != nil {
			return nil, err
		}
		b1, err := read(prefix+"intermediate.dense.bias", units)
		if err != nil {
			return nil, err
		}
		w2, err := read(prefix+"output.dense.weight", p*units)
		if err != nil {
			return nil, err
		}
		m := matrix{fmt.Sprintf("MiniLM block %d", layer), nil, units, 2*p + 1}
		for i := range units {
			m.x = append(append(m.x, w1[i*p:(i+1)*p]...), b1[i])
			for j := range p {
				m.x = append(m.x, w2[j*units+i])
			}
		}
		all = append(all, m)
	}
	return all, nil
}

// sideBySide makes a matrix of BERT-base's shape, 3072×1537, of four of MiniLM's:
// [a b; c d] without its last column. BERT-base's own weights were not to be had.
func sideBySide(four []matrix) matrix {
	m := matrix{"MiniLM blocks 0–3 as [a b; c d]", nil, 2 * four[0].rows, 2*four[0].cols - 1}
	for half := range 2 {
		a, b := four[2*half], four[2*half+1]
		for i := range a.rows {
			m.x = append(append(m.x, a.x[i*a.cols:(i+1)*a.cols]...), b.x[i*b.cols:(i+1)*b.cols-1]...)
		}
	}
	return m
}

func gaussian(rows, cols int) matrix {
	rng := rand.New(rand.NewPCG(1, 1))
	m := matrix{"iid Gaussian", make([]float32, rows*cols), rows, cols}
	for i := range m.x {
		m.x[i] = float32(rng.NormFloat64())
	}
	return m
}

// lognormal returns a random matrix with a mark of trained weights: rows and
// columns of unequal norms.
func lognormal(rows, cols int) []float32 {
	rng := rand.New(rand.NewPCG(1, 2))
	column := make([]float64, cols)
	for j := range column {
		column[j] = math.Exp(0.5 * rng.NormFloat64())
	}
	x := make([]float32, rows*cols)
	for i := range rows {
		norm := math.Exp(0.5 * rng.NormFloat64())
		for j, c := range column {
			x[i*cols+j] = float32(norm * c * rng.NormFloat64())
		}
	}
	return x
}
