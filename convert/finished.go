package convert

import (
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"mlpfusion/checkpoint"
	"mlpfusion/fusion"
	"mlpfusion/model"
)

// WorkSuffix ends the name of the folder beside an output that keeps the finished
// blocks of an interrupted run.
const WorkSuffix = ".fuse"

// finished is a compressed block.
type finished struct {
	info  checkpoint.Layer
	block *fusion.Block
}

// blockState is what a finished block's file says besides its tensors.
type blockState struct {
	Recipe string `json:"recipe"`
	// Source are the weights that it was made of, as checkpoint.Dir.SHA256 has them.
	Source map[string]string `json:"source"`
	Info   checkpoint.Layer  `json:"info"`
}

// recipe says how a finished block was made, so that a resumed run does not mix
// recipes.
func (f *fuser) recipe(b *model.Block) string {
	o := f.opt.Fusion
	i := slices.Index(f.blocks, b)
	return fmt.Sprintf("%s %s width=%d seed=%d clustering=%s restarts=%d effort=%d weighted=%t select=%t refit=%t ridge=%g fit=%d balance=%t calibration=%s experts=%d",
		f.opt.Method, b.Name, f.widths[i], o.Seed, o.Clustering, o.Restarts, o.Effort, o.Weighted, o.Select, o.Refit, o.Ridge, o.Fit, o.Balance, f.opt.CalibrationName, o.Experts)
}

// otherwise names what differs between two recipes.
func otherwise(was, is string) string {
	var list []string
	now := strings.Fields(is)
	for i, old := range strings.Fields(was) {
		if i < len(now) && old != now[i] {
			list = append(list, fmt.Sprintf("%s in place of %s", old, now[i]))
		}
	}
	return strings.Join(list, ", ")
}

func (f *fuser) path(place int) string {
	return filepath.Join(f.work, fmt.Sprintf("block-%04d.safetensors", place))
}

// save keeps a finished block for a resumed run: what is its own.
func (f *fuser) save(place int, done finished) error {
	block := *done.block
	if done.info.Weights != "" {
		block.Gate, block.Up, block.Down = nil, nil, nil
	}
	var sections []checkpoint.Section
	for name, v := range blockValues(&block) {
		if *v != nil {
			sections = append(sections, checkpoint.Section{Name: name, Float32: *v})
		}
	}
	slices.SortFunc(sections, func(a, b checkpoint.Section) int { return strings.Compare(a.Name, b.Name) })
	return checkpoint.SaveSnapshot(f.path(place), blockState{f.recipe(f.blocks[place]), f.sums, done.info}, sections)
}

// load reads a finished block; the error is fs.ErrNotExist when there is none.
func (f *fuser) load(path string, b *model.Block) (info checkpoint.Layer, _ *fusion.Block, err error) {
	if _, err := os.Stat(path); err != nil {
		return info, nil, err
	}
	var s blockState
	r, err := checkpoint.LoadSnapshot(path, &s)
	if err != nil {
		return info, nil, err
	}
	defer r.Close()
	if !maps.Equal(s.Source, f.sums) {
		return info, nil, fmt.Errorf("%s: expected a block of the weights in %s, found one of others: they were replaced since; remove the folder to begin anew", path, f.src.Path)
	}
	if want := f.recipe(b); s.Recipe != want {
		return info, nil, fmt.Errorf("%s: expected a block made by the same command, found another one: %s", path, otherwise(s.Recipe, want))
	}
	block := &fusion.Block{MLP: fusion.MLP{Hidden: b.Hidden, Width: s.Info.Width, Act: b.Act}, Masked: s.Info.Masked, Inertia: s.Info.Inertia, InputInertia: s.Info.Total}
	if s.Info.Rank > 0 {
		block.Factors = &fusion.Factors{Rank: s.Info.Rank}
	}
	for name, v := range blockValues(block) {
		if t, ok := r.Tensor(name); ok {
			*v = make([]float32, t.Elements())
			if err := t.ReadFloat32(*v); err != nil {
				return info, nil, err
			}
		}
	}
	return s.Info, block, nil
}

// loadAll reads a group's blocks; the error is fs.ErrNotExist when one is not
// there.
func (f *fuser) loadAll(group []int) ([]finished, error) {
	all := make([]finished, len(group))
	for i, place := range group {
		var err error
		if all[i].info, all[i].block, err = f.load(f.path(place), f.blocks[place]); err != nil {
			return nil, err
		}
		for j, owner := range group[:i] {
			if f.blocks[owner].Name == all[i].info.Weights {
				from := all[j].block
				all[i].block.Gate, all[i].block.Up, all[i].block.Down = from.Gate, from.Up, from.Down
			}
		}
	}
	return all, nil
}
