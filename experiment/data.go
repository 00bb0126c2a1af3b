package experiment

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"mlpfusion/chat"
	"mlpfusion/internal/disk"
	"mlpfusion/model"
	"mlpfusion/task"
	"mlpfusion/tokenize"
	"mlpfusion/train"
)

// taskData is a task's examples as the model reads them.
type taskData struct {
	set         *task.Dataset
	tok         tokenize.Tokenizer
	cfg         *model.Config
	head        model.LoadOptions // of the source and what is made of it
	longest     int               // tokens
	template    *chat.Template    // of conversations
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
	if d.set, err = task.Load(spec, folder, task.Columns{Text: r.Config.Text, Pair: r.Config.Pair, Label: r.Config.Label}); err != nil {
		return nil, err
	}
	if d.set.HoldOut() && r.Observer.Note != nil {
		r.Observer.Note("%s: no dev set there; %d of the training examples are held out for it", folder, len(d.set.Dev))
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
	if n := d.tok.BaseSize(); n > cfg.Vocab {
		return nil, fmt.Errorf("%s: expected a tokenizer of at most the model's %d entries, found %d", r.Source.Path, cfg.Vocab, n)
	}
	if spec.Chat {
		if d.template, err = chat.Load(r.Source.Path, "", d.tok); err != nil {
			return nil, err
		}
	}
	d.head = train.FitHead(d.set, cfg)
	if d.head.OtherClasses && r.Observer.Note != nil {
		r.Observer.Note("%s: its classification head is for %s, not for %s: a new one is made", r.Source.Path, strings.Join(cfg.Labels, ", "), strings.Join(d.set.Spec.Labels, ", "))
	}
	d.cfg, d.longest = cfg, min(r.Config.MaxLength, cfg.MaxLength())
	if d.dev, err = d.encode(d.set.Dev, 0, r.Config.DevRows); err != nil {
		return nil, fmt.Errorf("%s: %w", r.Source.Path, err)
	}
	if r.tasks == nil {
		r.tasks = map[string]*taskData{}
	}
	r.tasks[name] = d
	return d, nil
}

// encode tokenizes the first rows of a seeded order of examples, all when rows
// is 0.
func (d *taskData) encode(examples []task.Example, seed uint64, rows int) (*task.Encoded, error) {
	return train.Encode(d.tok, d.set.Spec, d.cfg, examples, train.EncodeOptions{Length: d.longest, Rows: rows, Seed: seed, Template: d.template})
}

// trainRows are the training examples of a seed, the last one's kept.
func (d *taskData) trainRows(seed uint64, rows int) (_ *task.Encoded, err error) {
	if rows == 0 || rows >= len(d.set.Train) {
		seed = 0 // all rows, whatever the seed
	}
	if d.train == nil || d.trainSeed != seed {
		d.trainSeed = seed
		d.train, err = d.encode(d.set.Train, seed, rows)
	}
	return d.train, err
}

// calibration are training texts for the methods that look at inputs, the same
// for all seeds.
func (d *taskData) calibration(rows int) (_ *task.Encoded, err error) {
	if d.calibrating == nil {
		d.calibrating, err = d.encode(d.set.Train, 0, rows)
	}
	return d.calibrating, err
}

// findTask finds a task's folder under root by its name, in any case and with
// or without hyphens, or takes root itself when nothing in it is called so.
func findTask(root, name string) (string, error) {
	if info, err := os.Stat(root); err == nil && !info.IsDir() {
		return root, nil
	}
	entries, err := disk.ReadDir(root)
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
