package experiment

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"

	"mlpfusion/checkpoint"
	"mlpfusion/convert"
	"mlpfusion/internal/disk"
	"mlpfusion/ntk"
	"mlpfusion/task"
	"mlpfusion/train"
)

// Cell is the result of one cell.
type Cell struct {
	Key
	Main    string        `json:"main_metric"`
	Metrics []task.Metric `json:"metrics,omitempty"` // of the best evaluation of the dev set
	Step    int           `json:"step"`              // of that evaluation
	Int8    []task.Metric `json:"int8,omitempty"`    // of the same weights with the fused blocks' matrices (of the original all blocks') as int8
	Rows    *task.Rows    `json:"rows,omitempty"`    // what the best weights say of each dev row
	Points  []train.Point `json:"points"`
	Tuning  []train.Point `json:"tuning,omitempty"`

	Blocks     []Block `json:"blocks,omitempty"`
	Parameters int     `json:"parameters"`
	// FLOPs of one token in all MLPs, and in the original's.
	FLOPs         int `json:"mlp_flops"`
	OriginalFLOPs int `json:"original_mlp_flops"`

	// Output and NTK compare the model that fine-tuning starts from with the
	// original.
	Output *OutputError `json:"output,omitempty"`
	NTK    *NTK         `json:"ntk,omitempty"`
	// Routers is what the routers of a mixture of experts do before fine-tuning,
	// beside the original's.
	Routers []convert.RouterUse `json:"routers,omitempty"`

	Examples        int     `json:"examples"`
	DevExamples     int     `json:"dev_examples"`
	Seconds         Seconds `json:"seconds"`
	SecondsPerStep  float64 `json:"seconds_per_step"`
	TokensPerSecond float64 `json:"tokens_per_second"`
	PeakMemory      int64   `json:"peak_memory_bytes"`
	// TrainingMemory is what fine-tuning takes: the model, gradients and moments, the largest
	// step and the evaluation, without a teacher (train.Memory).
	TrainingMemory int64 `json:"training_memory_bytes,omitempty"`
}

// Block says how well one block was compressed.
type Block struct {
	Name       string  `json:"name"`
	Layer      int     `json:"layer"`
	Width      int     `json:"width"`
	Inertia    float64 `json:"inertia,omitempty"`
	Total      float64 `json:"total,omitempty"` // the inertia of one cluster
	Silhouette float64 `json:"silhouette,omitempty"`
	Sizes      []int   `json:"sizes,omitempty"` // of clusters, where P is kept
}

// OutputError is how far hidden states lie from the original's: by layer the
// mean over tokens of the 2-norm of their difference, and of the states
// themselves; and of the logits.
type OutputError struct {
	Hidden     []float64 `json:"hidden"`
	HiddenNorm []float64 `json:"hidden_norm"`
	Logits     float64   `json:"logits"`
	LogitsNorm float64   `json:"logits_norm"`
}

// Relative is the last layer's error relative to the states there.
func (o *OutputError) Relative() float64 {
	last := len(o.Hidden) - 1
	return o.Hidden[last] / o.HiddenNorm[last]
}

// NTK is how far the tangent kernel lies from the original's.
type NTK struct {
	Kind   string            `json:"kind"`
	Rows   int               `json:"rows"`
	Sum    ntk.Difference    `json:"sum"` // of all fused blocks together
	Blocks []BlockDifference `json:"blocks"`
	// Kernel and Original are the numpy files of the summed kernels, in the
	// comparison's folder.
	Kernel   string `json:"kernel"`
	Original string `json:"original"`
}

// BlockDifference is one block's.
type BlockDifference struct {
	Block string `json:"block"`
	ntk.Difference
}

// Seconds are what the parts of a cell took. Fuse is of the compressed model,
// which several cells may share; Total is what this cell's own run took.
type Seconds struct {
	Fuse    float64 `json:"fuse"`
	Measure float64 `json:"measure"`
	Tune    float64 `json:"tune"`
	Train   float64 `json:"train"`
	Total   float64 `json:"total"`
}

// Value is the main metric of the best evaluation.
func (c *Cell) Value() float64 {
	for _, m := range c.Metrics {
		if m.Name == c.Main {
			return m.Value
		}
	}
	return 0
}

// score is the main metric among some as tables show it, if less of it is better
// or not, as asked for.
func (c *Cell) score(metrics []task.Metric, lower bool) (float64, bool) {
	for _, m := range metrics {
		if m.Name == c.Main && task.LowerIsBetter(m.Name) == lower {
			return Shown(m), true
		}
	}
	return 0, false
}

// Shown is a metric as tables show it: in hundredths where more is better.
func Shown(m task.Metric) float64 {
	if task.LowerIsBetter(m.Name) {
		return m.Value
	}
	return 100 * m.Value
}

const (
	configFile = "comparison.json"
	cellsDir   = "cells"
)

// IsComparison tells whether dir is the folder of a comparison.
func IsComparison(dir string) bool {
	_, err := os.Stat(filepath.Join(dir, configFile))
	return err == nil
}

// Load reads a comparison's configuration and finished cells, in the order of
// their names.
func Load(dir string) (*Config, []*Cell, error) {
	c := &Config{}
	if err := readJSON(filepath.Join(dir, configFile), c); err != nil {
		return nil, nil, err
	}
	files, err := filepath.Glob(filepath.Join(dir, cellsDir, "*.json"))
	if err != nil {
		return nil, nil, err
	}
	slices.Sort(files)
	var cells []*Cell
	for _, f := range files {
		cell := &Cell{}
		if err := readJSON(f, cell); err != nil {
			return nil, nil, err
		}
		cells = append(cells, cell)
	}
	return c, cells, nil
}

func cellPath(dir string, k Key) string { return filepath.Join(dir, cellsDir, k.ID()+".json") }

// finished returns the cells that are done, of those wanted.
func finished(dir string, keys []Key) (map[Key]*Cell, error) {
	done := map[Key]*Cell{}
	for _, k := range keys {
		cell := &Cell{}
		err := readJSON(cellPath(dir, k), cell)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, err
		}
		if cell.Key != k {
			return nil, fmt.Errorf("%s: expected the cell %s, found %s", cellPath(dir, k), k, cell.Key)
		}
		done[k] = cell
	}
	return done, nil
}

func readJSON(path string, v any) error {
	text, err := disk.ReadFile(path)
	if err != nil {
		return err
	}
	if err := json.Unmarshal(text, v); err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	return nil
}

func writeJSON(path string, v any) error {
	text, err := json.MarshalIndent(v, "", " ")
	if err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	return checkpoint.WriteFileAtomic(path, append(text, '\n'))
}
