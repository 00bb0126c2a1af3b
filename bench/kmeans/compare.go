package main

import (
	"bufio"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"time"

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
	Matrix  string     `json:"matrix"`
	Rows    int        `json:"rows"`
	Columns int        `json:"columns"`
	K       int        `json:"k"`
	Threads int        `json:"peer_threads"`
	Starts  int        `json:"peer_starts"`
	Peer    measured   `json:"peer"`
	Ours    []measured `json:"ours"`
	Load    []float64  `json:"load"` // the machine's load average, after each run of the peer
}

type results struct {
	Date    string             `json:"date"`
	CPU     string             `json:"cpu"`
	Level   string             `json:"level"`
	Workers int                `json:"workers"`
	Peer    string             `json:"peer"`
	Threads map[string]float64 `json:"peer_seconds_by_threads"` // one start on the first matrix
	Rows    []row              `json:"rows"`
}

// session is a comparison under way.
type session struct {
	pool    *kernel.Pool
	in      *json.Encoder
	out     *bufio.Reader
	version string
	file    string // where the peer finds its matrix
}

func compare(command, model, folder string, starts, rounds int) error {
	all, err := blocks(model)
	if err != nil {
		return err
	}
	words := strings.Fields(command)
	peer := exec.Command(words[0], words[1:]...)
	peer.Stderr = os.Stderr
	in, err := peer.StdinPipe()
	if err != nil {
		return err
	}
	out, err := peer.StdoutPipe()
	if err != nil {
		return err
	}
	if err := peer.Start(); err != nil {
		return err
	}
	dir, err := os.MkdirTemp("", "kmeans-bench")
	if err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(dir) }()
	s := &session{pool: kernel.NewPool(0), in: json.NewEncoder(in), out: bufio.NewReader(out), file: filepath.Join(dir, "x.f32")}
	if err := s.run(all, starts, rounds, folder); err != nil {
		return err
	}
	if err := in.Close(); err != nil {
		return err
	}
	return peer.Wait()
}

// run writes the results anew after each matrix.
func (s *session) run(all []matrix, starts, rounds int, folder string) error {
	r := &results{Date: time.Now().UTC().Format(time.DateOnly), CPU: cpu(), Level: kernel.Level().String(), Workers: s.pool.Workers()}
	if err := s.give(all[0]); err != nil {
		return err
	}
	r.Threads = map[string]float64{}
	for _, threads := range []int{1, 2, 2, 1} {
		run, err := s.peer(all[0], len(r.Threads), 1, threads)
		if err != nil {
			return err
		}
		name := fmt.Sprint(threads)
		if old, ok := r.Threads[name]; !ok || run.Seconds < old {
			r.Threads[name] = run.Seconds
		}
	}
	r.Peer = s.version
	threads := 1
	if r.Threads["2"] < r.Threads["1"] {
		threads = 2
	}
	best := kmeans.Options{Algorithm: kmeans.AlgorithmBest}
	harder := kmeans.Options{Algorithm: kmeans.AlgorithmBest, Effort: 10}
	plan := []contender{
		{"kmeans", kmeans.Options{Algorithm: kmeans.AlgorithmKMeans, Restarts: starts}},
		{"ward", kmeans.Options{Algorithm: kmeans.AlgorithmWard}},
		{"best", best}, {"best, effort 10", harder},
	}
	for _, m := range append(slices.Clone(all), sideBySide(all), gaussian(3072, 1537)) {
		starts, plan := starts, plan
		if m.rows > 1536 {
			starts, plan = 1, plan[1:3]
		}
		next, err := s.matrix(m, starts, threads, rounds, plan)
		if err != nil {
			return err
		}
		r.Rows = append(r.Rows, next)
		if err := r.write(folder); err != nil {
			return err
		}
	}
	return nil
}

// matrix alternates on one matrix: ours, the peer, ours, …, ours.
func (s *session) matrix(m matrix, starts, threads, rounds int, ours []contender) (row, error) {
	r := row{Matrix: m.name, Rows: m.rows, Columns: m.cols, K: m.rows / 4, Threads: threads, Starts: starts, Peer: measured{Name: "peer"}}
	for _, c := range ours {
		r.Ours = append(r.Ours, measured{Name: c.Name})
	}
	if err := s.give(m); err != nil {
		return r, err
	}
	for round := range rounds + 1 {
		for i, c := range ours {
			c.options.K, c.options.Pool, c.options.Seed = r.K, s.pool, uint64(round)
			start, used := time.Now(), processTime()
			result, err := kmeans.Cluster(m.x, m.rows, m.cols, c.options)
			if err != nil {
				return r, err
			}
			r.Ours[i].Seconds = append(r.Ours[i].Seconds, time.Since(start).Seconds())
			r.Ours[i].CPU = append(r.Ours[i].CPU, processTime()-used)
			r.Ours[i].Inertia = append(r.Ours[i].Inertia, result.Inertia)
		}
		if round < rounds {
			run, err := s.peer(m, round, starts, threads)
			if err != nil {
				return r, err
			}
			r.Peer.Seconds = append(r.Peer.Seconds, run.Seconds)
			r.Peer.CPU = append(r.Peer.CPU, run.CPU)
			r.Peer.Inertia = append(r.Peer.Inertia, run.Inertia)
			r.Load = append(r.Load, load())
		}
	}
	for i := range r.Ours {
		o := &r.Ours[i]
		o.Speed = median(r.Peer.Seconds) / median(o.Seconds)
		o.Ratio = median(o.Inertia) / median(r.Peer.Inertia)
		fmt.Fprintf(os.Stderr, "%s: %s %.3f s, %.1f times the peer's speed, %.4f of its inertia\n", m.name, o.Name, median(o.Seconds), o.Speed, o.Ratio)
	}
	return r, nil
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
	err = s.in.Encode(map[string]any{"matrix": s.file, "rows": m.rows, "cols": m.cols, "k": m.rows / 4, "starts": starts, "threads": threads, "seed": seed})
	if err != nil {
		return a, err
	}
	line, err := s.out.ReadBytes('\n')
	if err != nil {
		return a, fmt.Errorf("the peer stopped: %w", err)
	}
	if err := json.Unmarshal(line, &a); err != nil {
		return a, fmt.Errorf("the peer's answer %q: %w", line, err)
	}
	s.version = a.Version
	return a, nil
}

// processTime is the processor time that this process has used, in seconds.
func processTime() float64 {
	var r syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &r); err != nil {
		return 0
	}
	return float64(r.Utime.Nano()+r.Stime.Nano()) * 1e-9
}

func median(x []float64) float64 {
	s := slices.Sorted(slices.Values(x))
	return (s[(len(s)-1)/2] + s[len(s)/2]) / 2
}

func cpu() string {
	text, err := os.ReadFile("/proc/cpuinfo")
	if err != nil {
		return "unknown"
	}
	_, rest, _ := strings.Cut(string(text), "model name")
	name, _, _ := strings.Cut(rest, "\n")
	return strings.Trim(name, " \t:")
}

func (r *results) write(folder string) error {
	slug := strings.Trim(regexp.MustCompile(`[^a-z0-9]+`).ReplaceAllString(strings.ToLower(r.CPU), "-"), "-")
	base := filepath.Join(folder, r.Date+"-"+slug+"-kmeans")
	data, err := json.MarshalIndent(r, "", " ")
	if err != nil {
		return err
	}
	if err := os.WriteFile(base+".json", append(data, '\n'), 0o644); err != nil {
		return err
	}
	f, err := os.Create(base + ".md")
	if err != nil {
		return err
	}
	r.markdown(f)
	return f.Close()
}

func (r *results) markdown(w io.Writer) {
	line := func(format string, args ...any) { _, _ = fmt.Fprintf(w, format+"\n", args...) }
	line("# Clustering beside %s\n", r.Peer)
	line("%s, %s, %s, %d workers. Medians; each run of the peer stood between two of ours. The machine was", r.Date, r.CPU, r.Level, r.Workers)
	line("shared with other work: load is its load average after the peer's runs. Processor time counts all")
	line("threads and suffers less from that. The 3072×1537 matrices have BERT-base's shape but are")
	line("synthetic: its weights were not to be had.\n")
	line("| matrix | clusters | peer's starts, threads | peer, s (cpu s) | ours | s (cpu s) | times faster (by cpu s) | inertia, ours/peer | load |")
	line("| --- | --- | --- | --- | --- | --- | --- | --- | --- |")
	type sums struct{ speed, cpu, ratio []float64 }
	all := map[string]*sums{}
	var names []string
	for _, row := range r.Rows {
		p := row.Peer
		for _, o := range row.Ours {
			cpu := median(p.CPU) / median(o.CPU)
			line("| %s, %d×%d | %d | %d, %d | %.2f (%.2f) | %s | %.3f (%.3f) | %.1f (%.1f) | %.4f | %.1f |", row.Matrix, row.Rows, row.Columns, row.K,
				row.Starts, row.Threads, median(p.Seconds), median(p.CPU), o.Name, median(o.Seconds), median(o.CPU), o.Speed, cpu, o.Ratio, median(row.Load))
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
	line("\nMedian over MiniLM's blocks:\n")
	line("| ours | times faster (by cpu s) | inertia, ours/peer |")
	line("| --- | --- | --- |")
	for _, name := range names {
		s := all[name]
		line("| %s | %.1f (%.1f) | %.4f |", name, median(s.speed), median(s.cpu), median(s.ratio))
	}
}
