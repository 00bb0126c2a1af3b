package convert

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"mlpfusion/checkpoint"
	"mlpfusion/fusion"
	"mlpfusion/internal/disk"
)

// shard says, in the folder of finished blocks, which of them one of several processes
// makes. The blocks of all shards are listed, so that Merge knows when it has them all.
type shard struct {
	Shard  int               `json:"shard"` // 1 … Shards
	Shards int               `json:"shards"`
	Method string            `json:"method"`
	Seed   uint64            `json:"seed"`
	Store  string            `json:"store"`
	Name   string            `json:"source"`
	Sums   map[string]string `json:"source_sha256"`
	Blocks []shardBlock      `json:"blocks"`
}

// shardBlock is one block that is compressed.
type shardBlock struct {
	Name   string `json:"name"`
	Shard  int    `json:"shard"` // whose it is
	Recipe string `json:"recipe"`
}

func shardFile(i, n int) string { return fmt.Sprintf("shard-%d-of-%d.json", i, n) }

// share leaves of the groups those of the shard: every n-th, so that the shards get parts
// of each layer alike.
func (o *FuseOptions) share(groups [][]int) (own [][]int) {
	for i, g := range groups {
		if o.Shards == 0 || i%o.Shards == o.Shard-1 {
			own = append(own, g)
		}
	}
	return own
}

// checkShard refuses to share what cannot be: a dense block that is fitted to what the
// blocks before it left waits for them.
func (f *fuser) checkShard() error {
	o := &f.opt
	if o.Shards == 0 {
		return nil
	}
	if o.Shard < 1 || o.Shard > o.Shards {
		return fmt.Errorf("shard: expected 1 to %d of %d, found %d", o.Shards, o.Shards, o.Shard)
	}
	for _, i := range f.chosen {
		if f.waits(i) {
			return fmt.Errorf("shard: expected blocks that do not wait for one another, found %s, which %s fits to what those before it left: give --apart to fit each to the original's states", f.blocks[i].Name, o.Method)
		}
	}
	return nil
}

// waits tells whether a block's inputs depend on the blocks compressed before it.
func (f *fuser) waits(place int) bool {
	return f.opt.Calibration != nil && !f.opt.Apart && !f.blocks[place].Mixed() && place != f.chosen[0]
}

// saveShard writes what the shard is to make.
func (f *fuser) saveShard() error {
	s := shard{f.opt.Shard, f.opt.Shards, f.opt.Method, f.opt.Fusion.Seed, f.opt.Store, f.opt.Name, f.sums, nil}
	for k, g := range f.groups() {
		for _, place := range g {
			s.Blocks = append(s.Blocks, shardBlock{f.blocks[place].Name, k%s.Shards + 1, f.recipe(place)})
		}
	}
	raw, err := json.MarshalIndent(s, "", "  ")
	if err != nil {
		return err
	}
	return checkpoint.WriteFileAtomic(filepath.Join(f.work, shardFile(s.Shard, s.Shards)), append(raw, '\n'))
}

// Merge writes to the directory out what Fuse would have written, from the blocks that
// its shards have made: they lie in the folders given, or beside out as Fuse leaves them.
func Merge(ctx context.Context, src *checkpoint.Dir, out string, folders []string, overwrite bool) (*Fused, error) {
	f := &fuser{src: src, work: filepath.Clean(out) + WorkSuffix}
	if _, err := os.Stat(f.work); err == nil && !slices.Contains(folders, f.work) {
		folders = append([]string{f.work}, folders...)
	}
	s, found, err := readShards(folders)
	if err != nil {
		return nil, err
	}
	if err := f.adopt(s); err != nil {
		return nil, err
	}
	o, err := checkpoint.CreateOutput(out, overwrite)
	if err != nil {
		return nil, err
	}
	defer o.Abort()
	if f.sums, err = src.SHA256(ctx, nil); err != nil {
		return nil, err
	}
	if err := f.gather(s, folders, found); err != nil {
		return nil, err
	}
	if err := f.write(ctx, o); err != nil {
		return nil, err
	}
	if err := o.Commit(); err != nil {
		return nil, err
	}
	return f.result(out), disk.RemoveAll(f.work)
}

// readShards reads what the shards in some folders say of themselves, one of them for
// all, and which there are.
func readShards(folders []string) (first *shard, found map[int]bool, err error) {
	found = map[int]bool{}
	var from string
	for _, folder := range folders {
		files, err := filepath.Glob(filepath.Join(folder, "shard-*-of-*.json"))
		if err != nil {
			return nil, nil, err
		}
		if len(files) == 0 {
			return nil, nil, fmt.Errorf("%s: expected a folder in which a shard has left its blocks (fuse --shard), found none", folder)
		}
		for _, path := range files {
			raw, err := disk.ReadFile(path)
			if err != nil {
				return nil, nil, err
			}
			var s shard
			if err := json.Unmarshal(raw, &s); err != nil {
				return nil, nil, fmt.Errorf("%s: %w", path, err)
			}
			if s.Shards < 1 || s.Shard < 1 || s.Shard > s.Shards || len(s.Blocks) == 0 {
				return nil, nil, fmt.Errorf("%s: expected a shard and its blocks, found %d of %d with %d blocks", path, s.Shard, s.Shards, len(s.Blocks))
			}
			if first == nil {
				first, from = &s, path
			} else if what := first.foreign(&s); what != "" {
				return nil, nil, fmt.Errorf("%s: expected a shard of the run of %s, found one of another: %s", path, from, what)
			}
			found[s.Shard] = true
		}
	}
	if first == nil {
		return nil, nil, errors.New("merge: expected the folders in which shards have left their blocks, found none")
	}
	return first, found, nil
}

// foreign says in what another shard is of another run, "" if it is of this one.
func (s *shard) foreign(o *shard) string {
	for _, d := range []struct{ what, was, is string }{
		{"shards", fmt.Sprint(s.Shards), fmt.Sprint(o.Shards)}, {"method", s.Method, o.Method}, {"seed", fmt.Sprint(s.Seed), fmt.Sprint(o.Seed)}, {"store", s.Store, o.Store},
		{"weights", fmt.Sprint(s.Sums), fmt.Sprint(o.Sums)}, {"blocks", fmt.Sprint(len(s.Blocks)), fmt.Sprint(len(o.Blocks))},
	} {
		if d.was != d.is {
			return fmt.Sprintf("%s=%s in place of %s", d.what, d.is, d.was)
		}
	}
	for i, b := range s.Blocks {
		if b != o.Blocks[i] {
			return otherwise(o.Blocks[i].Recipe, b.Recipe)
		}
	}
	return ""
}

// adopt takes over the run that the shards are parts of.
func (f *fuser) adopt(s *shard) (err error) {
	f.opt.Method, f.opt.Fusion.Seed, f.opt.Store, f.opt.Name = s.Method, s.Seed, s.Store, s.Name
	if f.method, err = fusion.Lookup(s.Method); err != nil {
		return err
	}
	if err := f.open(); err != nil {
		return err
	}
	f.recipes, f.paths = map[int]string{}, map[int]string{}
	places := map[string]int{}
	for i, b := range f.blocks {
		places[b.Name] = i
	}
	for _, b := range s.Blocks {
		place, ok := places[b.Name]
		if !ok {
			return fmt.Errorf("%s: expected the model that the shards are of, found one without %s", f.src.Path, b.Name)
		}
		f.chosen = append(f.chosen, place)
		f.recipes[place] = b.Recipe
	}
	return nil
}

// gather finds each block's file and reads what is said of it.
func (f *fuser) gather(s *shard, folders []string, found map[int]bool) error {
	missing := map[int]int{} // by shard
	for k, b := range s.Blocks {
		place := f.chosen[k]
		file := filepath.Base(f.path(place))
		at := slices.IndexFunc(folders, func(folder string) bool {
			_, err := os.Stat(filepath.Join(folder, file))
			return !errors.Is(err, fs.ErrNotExist)
		})
		if at < 0 {
			missing[b.Shard]++
			continue
		}
		f.paths[place] = filepath.Join(folders[at], file)
		infos, err := f.finished([]int{place})
		if err != nil {
			return err
		}
		f.layers[b.Name] = infos[0]
	}
	if len(missing) == 0 {
		return nil
	}
	var list []string
	for i := 1; i <= s.Shards; i++ {
		switch {
		case missing[i] == 0:
		case found[i]:
			list = append(list, fmt.Sprintf("shard %d/%d that has yet to make %d of its blocks (go on with --resume)", i, s.Shards, missing[i]))
		default:
			list = append(list, fmt.Sprintf("no shard %d/%d", i, s.Shards))
		}
	}
	return fmt.Errorf("merge: expected all blocks of %d shards in %s, found %s", s.Shards, strings.Join(folders, ", "), strings.Join(list, ", "))
}
