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

// compressed is a block, and what config.json says of it; without a width of an expert
// that was dropped.
type compressed struct {
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
func (f *fuser) recipe(place int) string {
	if r, ok := f.recipes[place]; ok {
		return r
	}
	o, b, i := f.opt.Fusion, f.blocks[place], place
	return fmt.Sprintf("%s %s width=%d seed=%d clustering=%s restarts=%d effort=%d weighted=%t select=%t refit=%t ridge=%g fit=%d balance=%t calibration=%s apart=%t experts=%d",
		f.opt.Method, b.Name, f.widths[i], o.Seed, o.Clustering, o.Restarts, o.Effort, o.Weighted, o.Select, o.Refit, o.Ridge, o.Fit, o.Balance, f.opt.CalibrationName, f.opt.Apart, o.Experts)
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
	if path, ok := f.paths[place]; ok {
		return path
	}
	return filepath.Join(f.work, fmt.Sprintf("block-%04d.safetensors", place))
}

// save keeps a finished block for a resumed run: what is its own.
func (f *fuser) save(place int, done compressed) error {
	var block fusion.Block
	if done.block != nil {
		block = *done.block
	}
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
	return checkpoint.SaveSnapshot(f.path(place), blockState{f.recipe(place), f.sums, done.info}, sections)
}

// openBlock opens a finished block's file; the error is fs.ErrNotExist when there is none.
func (f *fuser) openBlock(place int) (info checkpoint.Layer, _ *checkpoint.Reader, err error) {
	path := f.path(place)
	if _, err := os.Stat(path); err != nil {
		return info, nil, err
	}
	var s blockState
	r, err := checkpoint.LoadSnapshot(path, &s)
	if err != nil {
		return info, nil, err
	}
	if !maps.Equal(s.Source, f.sums) {
		err = fmt.Errorf("%s: expected a block of the weights in %s, found one of others: they were replaced since; remove the folder to begin anew", path, f.src.Path)
	} else if want := f.recipe(place); s.Recipe != want {
		err = fmt.Errorf("%s: expected a block made by the same command, found another one: %s", path, otherwise(s.Recipe, want))
	}
	if err != nil {
		_ = r.Close() // only read
		return info, nil, err
	}
	return s.Info, r, nil
}

// finished returns what is said of a group's blocks; the error is fs.ErrNotExist when
// one is not there.
func (f *fuser) finished(group []int) ([]checkpoint.Layer, error) {
	infos := make([]checkpoint.Layer, len(group))
	for i, place := range group {
		info, r, err := f.openBlock(place)
		if err != nil {
			return nil, err
		}
		if err := r.Close(); err != nil {
			return nil, err
		}
		infos[i] = info
	}
	return infos, nil
}

// load reads a finished block, with the matrices of another that it uses.
func (f *fuser) load(place int) (*fusion.Block, error) {
	block, info, err := f.loadOwn(place)
	if err != nil || info.Weights == "" {
		return block, err
	}
	owner, _, err := f.loadOwn(slices.IndexFunc(f.blocks, func(b *model.Block) bool { return b.Name == info.Weights }))
	if err == nil {
		block.Gate, block.Up, block.Down = owner.Gate, owner.Up, owner.Down
	}
	return block, err
}

// loadOwn reads what a finished block's file holds.
func (f *fuser) loadOwn(place int) (*fusion.Block, checkpoint.Layer, error) {
	info, r, err := f.openBlock(place)
	if err != nil {
		return nil, info, err
	}
	defer r.Close()
	b := f.blocks[place]
	block := &fusion.Block{MLP: fusion.MLP{Hidden: b.Hidden, Width: info.Width, Act: b.Act}, Masked: info.Masked, Inertia: info.Inertia, InputInertia: info.Total}
	if info.Rank > 0 {
		block.Factors = &fusion.Factors{Rank: info.Rank}
	}
	for name, v := range blockValues(block) {
		if t, ok := r.Tensor(name); ok {
			*v = make([]float32, t.Elements())
			if err := t.ReadFloat32(*v); err != nil {
				return nil, info, err
			}
		}
	}
	return block, info, nil
}

// form is that of a finished block.
func (f *fuser) form(place int) (form model.BlockConfig, err error) {
	info, r, err := f.openBlock(place)
	if err != nil {
		return form, err
	}
	defer r.Close()
	form = model.BlockConfig{Width: info.Width, Rank: info.Rank, Masked: info.Masked, Weights: info.Weights, Apart: true}
	_, form.ClusterSizes = r.Tensor("scale")
	_, form.StepSizes = r.Tensor("step")
	return form, nil
}
