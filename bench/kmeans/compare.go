package main

import (
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"time"

	"mlpfusion/bench/internal/peer"
	"mlpfusion/bench/internal/results"
	"mlpfusion/bench/internal/usage"
	"mlpfusion/kernel"
	"mlpfusion/kmeans"
)

// contender is one of our ways to cluster.
type contender struct {
	Name    string `json:"name"`
	options kmeans.Options
}

// measured holds the runs of one side on one matrix.
type measured struct {
	Name    string    `json:"name"`
	Seconds []float64 `json:"seconds"`
	CPU     []float64 `json:"cpu_seconds"` // of all threads; little changed by what else runs
	Inertia []float64 `json:"inertia"`
	Speed   float64   `json:"times_faster,omitempty"`  // the peer's median time by ours
	Ratio   float64   `json:"inertia_ratio,omitempty"` // our median inertia by the peer's
}

// row is the comparison on one matrix.
type row struct {
	Peer    string `json:"peer"` // name and version
	Matrix  string `json:"matrix"`
	Rows    int    `json:"rows"`
	Columns int    `json:"columns"`
	K       int    `json:"k"`
	Threads int    `json:"peer_threads"`
	// Trials are the peer's seconds for one start by its number of threads.
	Trials map[int]float64 `json:"peer_seconds_by_threads"`
	Starts int             `json:"peer_starts"`
	Theirs measured        `json:"theirs"`
	Ours   []measured      `json:"ours"`
}

// session is a comparison under way.
type session struct {
	pool    *kernel.Pool
	theirs  *peer.Process
	version string
	file    string // where the peer finds its matrix
}

// plan is what compare does: runs of the peer on the matrices of only, "" for all.
type plan struct {
	only           string
	starts, rounds int
}

func compare(command, model, folder string, p plan) error {
	all, err := blocks(model)
	if err != nil {
		return err
	}
	all = append(all, sideBySide(all), gaussian(3072, 1537))
	chosen := all
	if p.only != "" {
		chosen = nil
		for _, word := range strings.Split(p.only, ",") {
			i, err := strconv.Atoi(word)
			if err != nil || i < 0 || i >= len(all) {
				return fmt.Errorf("-only: expected numbers from 0 to %d such as 0,1,2, found %q", len(all)-1, p.only)
			}
			chosen = append(chosen, all[i])
		}
	}
	words := strings.Fields(command)
	theirs, err := peer.Start(words[0], words[1:]...)
	if err != nil {
		return err
	}
	dir, err := os.MkdirTemp("", "kmeans-bench")
	if err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(dir) }()
	s := &session{pool: kernel.NewPool(0), theirs: theirs, file: filepath.Join(dir, "x.f32")}
	if err := s.run(chosen, p, folder); err != nil {
		return err
	}
	return theirs.Close()
}

// run adds each matrix to the results of the day, in place of what they hold of it.
func (s *session) run(chosen []matrix, p plan, folder string) error {
	best := kmeans.Options{Algorithm: kmeans.AlgorithmBest}
	harder := kmeans.Options{Algorithm: kmeans.AlgorithmBest, Effort: 10}
	contenders := []contender{
		{"kmeans", kmeans.Options{Algorithm: kmeans.AlgorithmKMeans, Restarts: p.starts}},
		{"ward", kmeans.Options{Algorithm: kmeans.AlgorithmWard}},
		{"best", best}, {"best, effort 10", harder},
	}
	trials := map[int]map[int]float64{} // by the matrix's rows
	for _, m := range chosen {
		if err := s.give(m); err != nil {
			return err
		}
		if trials[m.rows] == nil {
			var err error
			if trials[m.rows], err = s.trials(m); err != nil {
				return err
			}
		}
		next := row{Peer: s.version, Matrix: m.name, Rows: m.rows, Columns: m.cols, K: m.rows / 4, Trials: trials[m.rows], Threads: 1, Starts: p.starts, Theirs: measured{Name: "peer"}}
		if n := runtime.NumCPU(); next.Trials[n] < next.Trials[1] {
			next.Threads = n
		}
		ours := contenders
		if m.rows > 1536 {
			next.Starts, ours = 1, contenders[1:3]
		}
		if err := s.matrix(m, &next, p.rounds, ours); err != nil {
			return err
		}
		_, err := results.Write(folder, "kmeans", []row{next}, func(r row) string { return r.Matrix }, markdown)
		if err != nil {
			return err
		}
	}
	return nil
}

// trials returns the peer's better time of two for one start, by threads.
func (s *session) trials(m matrix) (map[int]float64, error) {
	seconds := map[int]float64{}
	for i, threads := range []int{1, runtime.NumCPU(), runtime.NumCPU(), 1} {
		run, err := s.peer(m, i, 1, threads)
		if err != nil {
			return nil, err
		}
		if old, ok := seconds[threads]; !ok || run.Seconds < old {
			seconds[threads] = run.Seconds
		}
	}
	return seconds, nil
}

// matrix alternates on one matrix: ours, the peer, ours, …, ours.
func (s *session) matrix(m matrix, r *row, rounds int, ours []contender) error {
	for _, c := range ours {
		r.Ours = append(r.Ours, measured{Name: c.Name})
	}
	for round := range rounds + 1 {
		time.Sleep(results.Settle)
		for i, c := range ours {
			c.options.K, c.options.Pool, c.options.Seed = r.K, s.pool, uint64(round)
			start, used := time.Now(), usage.Processor()
			result, err := kmeans.Cluster(m.x, m.rows, m.cols, c.options)
			if err != nil {
				return err
			}
			r.Ours[i].Seconds = append(r.Ours[i].Seconds, time.Since(start).Seconds())
			r.Ours[i].CPU = append(r.Ours[i].CPU, usage.Processor()-used)
			r.Ours[i].Inertia = append(r.Ours[i].Inertia, result.Inertia)
		}
		if round < rounds {
			run, err := s.peer(m, round, r.Starts, r.Threads)
			if err != nil {
				return err
			}
			r.Theirs.Seconds = append(r.Theirs.Seconds, run.Seconds)
			r.Theirs.CPU = append(r.Theirs.CPU, run.CPU)
			r.Theirs.Inertia = append(r.Theirs.Inertia, run.Inertia)
		}
	}
	for i := range r.Ours {
		o := &r.Ours[i]
		o.Speed = results.Median(r.Theirs.Seconds) / results.Median(o.Seconds)
		o.Ratio = results.Median(o.Inertia) / results.Median(r.Theirs.Inertia)
		fmt.Fprintf(os.Stderr, "%s: %s %.3f s, %.1f times the peer's speed, %.4f of its inertia\n", m.name, o.Name, results.Median(o.Seconds), o.Speed, o.Ratio)
	}
	return nil
}

// give writes the matrix where the peer finds it.
func (s *session) give(m matrix) error {
	f, err := os.Create(s.file)
	if err != nil {
		return err
	}
	return errors.Join(binary.Write(f, binary.LittleEndian, m.x), f.Close())
}

// answer is what the peer says of a run.
type answer struct {
	Seconds, CPU, Inertia float64
	Version               string
}

func (s *session) peer(m matrix, seed, starts, threads int) (a answer, err error) {
	a, err = peer.Ask[answer](s.theirs, map[string]any{"matrix": s.file, "rows": m.rows, "cols": m.cols, "k": m.rows / 4, "starts": starts, "threads": threads, "seed": seed})
	s.version = a.Version
	return a, err
}

// markdown is the table of all rows and the medians over MiniLM's.
func markdown(on results.Machine, rows []row) string {
	var text strings.Builder
	line := func(format string, args ...any) { fmt.Fprintf(&text, format+"\n", args...) }
	rows = slices.SortedFunc(slices.Values(rows), func(a, b row) int { return cmp.Or(cmp.Compare(a.Rows, b.Rows), cmp.Compare(a.Matrix, b.Matrix)) })
	line("# Clustering beside %s\n", rows[0].Peer)
	line("%s", on)
	line("Medians; each run of the peer stood between two of ours. Processor time counts all threads: where it")
	line("is well under a peer's seconds on one thread, other work shared the machine. The 3072×1537")
	line("matrices have BERT-base's shape but are synthetic: its weights were not to be had.\n")
	line("| matrix | clusters | peer's starts, threads | peer, s (cpu s) | ours | s (cpu s) | times faster (by cpu s) | inertia, ours/peer |")
	line("| --- | --- | --- | --- | --- | --- | --- | --- |")
	type sums struct{ speed, cpu, ratio []float64 }
	all := map[string]*sums{}
	var names []string
	for _, row := range rows {
		p := row.Theirs
		for _, o := range row.Ours {
			cpu := results.Median(p.CPU) / results.Median(o.CPU)
			line("| %s, %d×%d | %d | %d, %d | %.2f (%.2f) | %s | %.3f (%.3f) | %.1f (%.1f) | %.4f |", row.Matrix, row.Rows, row.Columns, row.K,
				row.Starts, row.Threads, results.Median(p.Seconds), results.Median(p.CPU), o.Name, results.Median(o.Seconds), results.Median(o.CPU), o.Speed, cpu, o.Ratio)
			if row.Rows > 1536 {
				continue
			}
			if all[o.Name] == nil {
				all[o.Name] = &sums{}
				names = append(names, o.Name)
			}
			s := all[o.Name]
			s.speed, s.cpu, s.ratio = append(s.speed, o.Speed), append(s.cpu, cpu), append(s.ratio, o.Ratio)
		}
	}
	if len(names) == 0 {
		return text.String()
	}
	line("\nMedian over MiniLM's blocks:\n")
	line("| ours | times faster (by cpu s) | inertia, ours/peer |")
	line("| --- | --- | --- |")
	for _, name := range names {
		s := all[name]
		line("| %s | %.1f (%.1f) | %.4f |", name, results.Median(s.speed), results.Median(s.cpu), results.Median(s.ratio))
	}
	return text.String()
}
