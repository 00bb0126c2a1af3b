// Command kmeans times this project's clustering on one matrix and prints what it
// found as a line of JSON. bench/peers/kmeans.py runs it side by side with
// scikit-learn.
package main

import (
	"encoding/binary"
	"encoding/json"
	"flag"
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"strconv"
	"strings"
	"time"

	"mlpfusion/kernel"
	"mlpfusion/kmeans"
)

type record struct {
	Algorithm  string    `json:"algorithm"`
	Effort     int       `json:"effort"`
	Restarts   int       `json:"restarts"`
	Rows       int       `json:"rows"`
	Columns    int       `json:"columns"`
	Clusters   int       `json:"clusters"`
	Workers    int       `json:"workers"`
	Level      string    `json:"level"`
	Seconds    []float64 `json:"seconds"`
	Inertia    float64   `json:"inertia"`
	Iterations int       `json:"iterations"`
	InputMB    float64   `json:"input_mb"`
	PeakMB     float64   `json:"peak_mb"` // of the process (VmHWM), the matrix included
}

func main() {
	matrix := flag.String("matrix", "", "file of rows×cols little-endian float32; empty: a random matrix")
	rows := flag.Int("rows", 0, "number of rows")
	cols := flag.Int("cols", 0, "number of columns")
	k := flag.Int("k", 0, "number of clusters")
	algorithm := flag.String("algorithm", "best", "kmeans, ward or best")
	effort := flag.Int("effort", 1, "of best")
	restarts := flag.Int("restarts", 30, "of kmeans")
	repeat := flag.Int("repeat", 1, "number of timed runs")
	seed := flag.Uint64("seed", 1, "of the clustering and of the random matrix")
	flag.Parse()

	x, err := read(*matrix, *rows, *cols, *seed)
	if err != nil {
		fail(err)
	}
	pool := kernel.NewPool(0)
	r := record{
		Algorithm: *algorithm, Effort: *effort, Restarts: *restarts, Rows: *rows, Columns: *cols, Clusters: *k,
		Workers: pool.Workers(), Level: kernel.Level().String(), InputMB: float64(len(x)) * 4e-6,
	}
	for range *repeat {
		start := time.Now()
		result, err := kmeans.Cluster(x, *rows, *cols, kmeans.Options{
			K: *k, Algorithm: kmeans.Algorithm(*algorithm), Effort: *effort, Restarts: *restarts, Seed: *seed, Pool: pool,
		})
		if err != nil {
			fail(err)
		}
		r.Seconds = append(r.Seconds, time.Since(start).Seconds())
		r.Inertia, r.Iterations = result.Inertia, result.Iterations
	}
	r.PeakMB = peak()
	if err := json.NewEncoder(os.Stdout).Encode(r); err != nil {
		fail(err)
	}
}

func fail(err error) {
	fmt.Fprintln(os.Stderr, err)
	os.Exit(1)
}

// read returns the matrix of the file, or, without one, a random matrix with the
// marks of trained weights: rows and columns of unequal norms (log-normal).
func read(file string, rows, cols int, seed uint64) ([]float32, error) {
	x := make([]float32, rows*cols)
	if file == "" {
		rng := rand.New(rand.NewPCG(seed, 0))
		column := make([]float64, cols)
		for j := range column {
			column[j] = math.Exp(0.5 * rng.NormFloat64())
		}
		for i := range rows {
			norm := math.Exp(0.5 * rng.NormFloat64())
			for j, c := range column {
				x[i*cols+j] = float32(norm * c * rng.NormFloat64())
			}
		}
		return x, nil
	}
	f, err := os.Open(file)
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }()
	return x, binary.Read(f, binary.LittleEndian, x)
}

// peak returns the most memory that the process has had resident, in MB.
func peak() float64 {
	status, err := os.ReadFile("/proc/self/status")
	if err != nil {
		return 0
	}
	for line := range strings.Lines(string(status)) {
		if rest, ok := strings.CutPrefix(line, "VmHWM:"); ok {
			kb, _ := strconv.ParseFloat(strings.Fields(rest)[0], 64)
			return kb * 1024e-6
		}
	}
	return 0
}
