package experiment

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"mlpfusion/model"
	"mlpfusion/task"
	"mlpfusion/tokenize"
)

// taskData is a task's examples as the model reads them.
type taskData struct {
	set         *task.Dataset
	tok         tokenize.Tokenizer
	longest     int // tokens
	dev         *task.Encoded
	train       *task.Encoded // of trainSeed
	trainSeed   uint64
	calibrating *task.Encoded
}

// data reads a task on first use.
func (r *Runner) data(name string) (*taskData, error) {
	if d := r.tasks[name]; d != nil {
		return d, nil
	}
	spec, err := task.Lookup(name)
	if err != nil {
		return nil, err
	}
	folder, err := findTask(r.Config.Data, spec.Name)
	if err != nil {
		return nil, err
	}
	d := &taskData{}
	if d.set, err = task.Load(spec, folder, task.Columns{}); err != nil {
		return nil, err
	}
	if len(d.set.Dev) == 0 {
		const share = 0.1
		parts := task.SplitExamples(0, d.set.Train, false, share, 1-share)
		d.set.Dev, d.set.Train = parts[0], parts[1]
		if r.Observer.Note != nil {
			r.Observer.Note("%s: no dev set there; %d of the training examples are held out for it", folder, len(d.set.Dev))
		}
	}
	if len(d.set.Train) == 0 {
		return nil, fmt.Errorf("%s: expected a training set, found none", folder)
	}
	cfg, err := model.ReadConfig(r.Source)
	if err != nil {
		return nil, err
	}
	if d.tok, err = tokenize.Load(r.Source.Path); err != nil {
		return nil, err
	}
	if n := d.tok.VocabSize(); n > cfg.Vocab {
		return nil, fmt.Errorf("%s: expected a tokenizer of at most the model's %d entries, found %d", r.Source.Path, cfg.Vocab, n)
	}
	d.longest = min(r.Config.MaxLength, cfg.Positions-cfg.PadID-1)
	d.dev = d.encode(d.set.Dev, 0, r.Config.DevRows)
	if r.tasks == nil {
		r.tasks = map[string]*taskData{}
	}
	r.tasks[name] = d
	return d, nil
}

// encode tokenizes the first rows of a seeded order of examples, all when rows
// is 0.
func (d *taskData) encode(examples []task.Example, seed uint64, rows int) *task.Encoded {
	if rows > 0 && rows < len(examples) {
		few := make([]task.Example, rows)
		for i, at := range task.Shuffle(seed, 0, len(examples))[:rows] {
			few[i] = examples[at]
		}
		examples = few
	}
	return task.Encode(d.tok, examples, d.longest, nil)
}

// trainRows are the training examples of a seed, the last one's kept.
func (d *taskData) trainRows(seed uint64, rows int) *task.Encoded {
	if rows == 0 || rows >= len(d.set.Train) {
		seed = 0 // all rows, whatever the seed
	}
	if d.train == nil || d.trainSeed != seed {
		d.train, d.trainSeed = d.encode(d.set.Train, seed, rows), seed
	}
	return d.train
}

// calibration are training texts for the methods that look at inputs, the same
// for all seeds.
func (d *taskData) calibration(rows int) *task.Encoded {
	if d.calibrating == nil {
		d.calibrating = d.encode(d.set.Train, 0, rows)
	}
	return d.calibrating
}

// findTask finds a task's folder under root by its name, in any case and with
// or without hyphens, or takes root itself when nothing in it is called so.
func findTask(root, name string) (string, error) {
	entries, err := os.ReadDir(root)
	if err != nil {
		return "", err
	}
	plain := strings.NewReplacer("-", "", "_", "")
	folders := false
	for _, e := range entries {
		if strings.ToLower(plain.Replace(e.Name())) == name {
			return filepath.Join(root, e.Name()), nil
		}
		folders = folders || !e.IsDir()
	}
	if !folders {
		return "", fmt.Errorf("%s: expected a folder of the task %s, such as %s, found none", root, name, strings.ToUpper(name))
	}
	return root, nil
}
