package main

import (
	"fmt"

	"mlpfusion/checkpoint"
	"mlpfusion/model"
)

// open finds MODEL, on disk or on the hub, and opens it.
func (a *app) open(name string) (*checkpoint.Dir, error) {
	var bar *progress
	last := ""
	path, err := checkpoint.Resolve(a.ctx, name, func(file string, done, total int64) {
		if file != last {
			if bar != nil {
				bar.end()
			}
			bar, last = a.ui.progress(file, "B", int(total)), file
		}
		bar.set(int(done), int(total), "")
	})
	if bar != nil {
		if err == nil {
			bar.end()
		} else {
			bar.stop()
		}
	}
	if err != nil {
		return nil, err
	}
	dir, err := checkpoint.OpenDir(path)
	if err != nil {
		return nil, err
	}
	if cfg, err := model.ReadConfig(dir); err == nil { // else whoever loads the model will say
		for _, note := range cfg.Notes {
			a.ui.say("%s: %s", path, note)
		}
	}
	return dir, nil
}

// change is the way from one number to a smaller or larger one, in words.
func change(from, to float64) string {
	if from == 0 || to == 0 {
		return ""
	}
	if to >= 0.995*from && to <= 1.005*from {
		return "unchanged"
	}
	return fmt.Sprintf("%+.1f %%", 100*(to/from-1))
}
