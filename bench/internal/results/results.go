// Package results keeps what a benchmark measured: bench/results/<date>-<cpu>-<name>
// as JSON, to which later runs of the same day add their rows, and as a table.
package results

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"

	"mlpfusion/kernel"
)

// Machine is what a measurement was made on.
type Machine struct {
	Date     string `json:"date"`
	CPU      string `json:"cpu"`
	Features string `json:"features"` // those that matter for the kernels
	Kernels  string `json:"kernels"`  // the level in use
}

// String is the line that stands above a table.
func (m Machine) String() string {
	return fmt.Sprintf("%s, %s; kernels %s; %s.", m.Date, m.CPU, m.Kernels, m.Features)
}

// Settle is how long a peer's threads are given to go to sleep before ours are
// timed: OpenMP's wait awake for up to a fifth of a second, on the processors that
// ours need.
const Settle = 250 * time.Millisecond

// Median is the middle of the values, of an even number the mean of the two in the
// middle, and 0 of none.
func Median(x []float64) float64 {
	if len(x) == 0 {
		return 0
	}
	y := slices.Sorted(slices.Values(x))
	return (y[(len(y)-1)/2] + y[len(y)/2]) / 2
}

// ThisMachine describes the machine that the program runs on.
func ThisMachine() Machine {
	m := Machine{Date: time.Now().UTC().Format("2006-01-02"), CPU: "unknown", Kernels: kernel.Level()}
	text, err := os.ReadFile("/proc/cpuinfo")
	if err != nil {
		return m
	}
	family := ""
	first, _, _ := strings.Cut(string(text), "\n\n") // of the processors
	for line := range strings.Lines(first) {
		key, value, _ := strings.Cut(line, ":")
		value = strings.TrimSpace(value)
		switch strings.TrimSpace(key) {
		case "model name":
			m.CPU = value
		case "cpu family", "model":
			family += " " + value
		case "CPU implementer", "CPU part": // arm64 has no names
			m.CPU = strings.TrimPrefix(m.CPU+" "+value, "unknown ")
		case "flags", "Features":
			var have []string
			for _, f := range []string{"avx2", "fma", "avx512f", "avx512_bf16", "amx_bf16", "asimd", "asimddp", "bf16", "i8mm", "sve"} {
				if slices.Contains(strings.Fields(value), f) {
					have = append(have, f)
				}
			}
			m.Features = strings.Join(have, " ")
		}
	}
	if family != "" {
		m.CPU += " family" + family
	}
	return m
}

type file[T any] struct {
	Machine
	Rows []T `json:"rows"`
}

// Write keeps rows in dir under a benchmark's name, in the place of those of the
// same key that this day's file holds and behind the others, and makes the table
// anew. With an empty dir nothing is kept; table gets all rows in either case.
func Write[T any](dir, name string, rows []T, key func(T) string, table func(Machine, []T) string) (string, error) {
	f := file[T]{Machine: ThisMachine()}
	slug := strings.Trim(regexp.MustCompile(`[^a-z0-9]+`).ReplaceAllString(strings.ToLower(f.CPU), "-"), "-")
	base := filepath.Join(dir, f.Date+"-"+slug+"-"+name)
	if dir != "" {
		var old file[T]
		text, err := os.ReadFile(base + ".json")
		if err == nil {
			err = json.Unmarshal(text, &old)
		} else if errors.Is(err, fs.ErrNotExist) {
			err = nil
		}
		if err != nil {
			return "", err
		}
		f.Rows = old.Rows
	}
	for _, r := range rows {
		i := slices.IndexFunc(f.Rows, func(o T) bool { return key(o) == key(r) })
		if i < 0 {
			f.Rows = append(f.Rows, r)
		} else {
			f.Rows[i] = r
		}
	}
	text := table(f.Machine, f.Rows)
	if dir == "" {
		return text, nil
	}
	data, err := json.MarshalIndent(f, "", "  ")
	if err != nil {
		return "", err
	}
	if err := os.WriteFile(base+".json", append(data, '\n'), 0o666); err != nil {
		return "", err
	}
	return text, os.WriteFile(base+".md", []byte(text), 0o666)
}
