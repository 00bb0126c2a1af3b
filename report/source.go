package report

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"strings"

	"mlpfusion/experiment"
	"mlpfusion/internal/disk"
	"mlpfusion/ntk"
	"mlpfusion/train"
)

// comparison is one comparison's cells; those of several folders made with the
// same settings, such as shards, are one.
type comparison struct {
	name     string
	settings experiment.Settings
	cells    []*experiment.Cell
	dir      map[*experiment.Cell]string
}

// training is the metrics of one training run.
type training struct {
	name   string
	points []train.Point
}

// read sorts out what the folders hold.
func read(dirs []string) (comparisons []*comparison, runs []training, err error) {
	byText := map[string]*comparison{}
	for _, dir := range dirs {
		if !experiment.IsComparison(dir) {
			run, err := readTraining(dir)
			if err != nil {
				return nil, nil, err
			}
			for _, r := range runs {
				if r.name == run.name { // told apart by the folder they lie in
					run.name = filepath.Join(filepath.Base(filepath.Dir(filepath.Clean(dir))), run.name)
					break
				}
			}
			runs = append(runs, run)
			continue
		}
		cfg, cells, err := experiment.Load(dir)
		if err != nil {
			return nil, nil, err
		}
		if len(cells) == 0 {
			return nil, nil, fmt.Errorf("%s: expected finished cells, found none yet", dir)
		}
		same := cfg.Settings
		same.Data = "" // wherever they lie
		text, err := json.Marshal(same)
		if err != nil {
			return nil, nil, err
		}
		c := byText[string(text)]
		if c == nil {
			c = &comparison{name: filepath.Base(filepath.Clean(dir)), settings: cfg.Settings, dir: map[*experiment.Cell]string{}}
			byText[string(text)] = c
			comparisons = append(comparisons, c)
		}
		seen := map[experiment.Key]bool{}
		for _, cell := range c.cells {
			seen[cell.Key] = true
		}
		for _, cell := range cells {
			if !seen[cell.Key] {
				c.cells = append(c.cells, cell)
				c.dir[cell] = dir
			}
		}
	}
	return comparisons, runs, nil
}

// readTraining reads the metrics of a run: of the model it made, or under way.
func readTraining(dir string) (training, error) {
	dir = filepath.Clean(dir)
	run := training{name: filepath.Base(dir)}
	path := filepath.Join(dir, train.MetricsFile)
	text, err := disk.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		if text, err = disk.ReadFile(filepath.Join(dir+".train", train.MetricsFile)); err != nil {
			return run, fmt.Errorf("%s: expected a comparison (comparison.json) or a training run (%s), found neither", dir, train.MetricsFile)
		}
	}
	if err != nil {
		return run, err
	}
	for line := range strings.Lines(string(text)) {
		if !strings.HasSuffix(line, "\n") {
			break // being written, or cut off by a kill
		}
		var p train.Point
		if err := json.Unmarshal([]byte(line), &p); err != nil {
			return run, fmt.Errorf("%s: line %d: %w", path, len(run.points)+1, err)
		}
		run.points = append(run.points, p)
	}
	if len(run.points) == 0 {
		return run, fmt.Errorf("%s: expected a point a line, found none", path)
	}
	return run, nil
}

// kernels reads the saved kernels of a cell: the original's and its own.
func (c *comparison) kernels(cell *experiment.Cell) (original, own *ntk.Kernel, err error) {
	if original, err = experiment.ReadKernel(filepath.Join(c.dir[cell], cell.NTK.Original)); err != nil {
		return nil, nil, err
	}
	own, err = experiment.ReadKernel(filepath.Join(c.dir[cell], cell.NTK.Kernel))
	return original, own, err
}
