// Command kmeans measures clustering.
//
// With -peer and -model it compares with a peer, for example
//
//	kmeans -peer "python bench/peers/kmeans.py" -model DIR -out bench/results
//
// on the sub-MLP matrices of the six blocks of MiniLM, whose folder DIR is, and on
// two matrices of BERT-base's shape. Each run of the peer stands between two of
// ours; the peer runs on one thread or on all processors, whichever suits it
// better. It writes DATE-CPU-kmeans.json and .md to the folder of -out; with
// -only 0,1,2 it measures those matrices and leaves what these hold of the others.
//
// Without -peer it clusters a random matrix of -rows × -cols and prints time and
// peak memory.
package main

import (
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"runtime"
	"time"

	"mlpfusion/internal/peak"
	"mlpfusion/kernel"
	"mlpfusion/kmeans"
)

// large is the result of clustering one random matrix.
type large struct {
	Rows    int     `json:"rows"`
	Columns int     `json:"columns"`
	K       int     `json:"k"`
	Seconds float64 `json:"seconds"`
	Inertia float64 `json:"inertia"`
	InputMB float64 `json:"input_mb"`
	PeakMB  float64 `json:"peak_mb"` // the most memory of the process, the matrix included (VmHWM)
}

func main() {
	peer := flag.String("peer", "", "command of the peer to compare with")
	model := flag.String("model", "", "folder of all-MiniLM-L6-v2")
	out := flag.String("out", "bench/results", "folder for the results")
	only := flag.String("only", "", "numbers of the matrices to compare on, such as 0,1,6 (6 and 7 have BERT-base's shape); all of them by default")
	starts := flag.Int("starts", 30, "starts of k-means on MiniLM's blocks")
	rounds := flag.Int("rounds", 1, "runs of the peer on each matrix")
	rows := flag.Int("rows", 14336, "rows of the random matrix")
	cols := flag.Int("cols", 12288, "columns of the random matrix")
	k := flag.Int("k", 3584, "clusters of the random matrix")
	flag.Parse()
	var err error
	if *peer == "" {
		err = random(*rows, *cols, *k)
	} else {
		err = compare(*peer, *model, *out, plan{*only, *starts, *rounds})
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "kmeans:", err)
		os.Exit(1)
	}
}

func random(rows, cols, k int) error {
	x := lognormal(rows, cols)
	pool := kernel.NewPool(0)
	start := time.Now()
	r, err := kmeans.Cluster(x, rows, cols, kmeans.Options{K: k, Algorithm: kmeans.AlgorithmBest, Pool: pool, Progress: func(done, total int) {
		if done%50 == 0 {
			fmt.Fprintf(os.Stderr, "%d of %d rounds, %.0f s\n", done, total, time.Since(start).Seconds())
		}
	}})
	if err != nil {
		return err
	}
	l := large{Rows: rows, Columns: cols, K: k, Seconds: time.Since(start).Seconds(), Inertia: r.Inertia, InputMB: float64(len(x)) * 4e-6}
	l.PeakMB = float64(peak.Bytes()) * 1e-6
	runtime.KeepAlive(x)
	return json.NewEncoder(os.Stdout).Encode(l)
}
