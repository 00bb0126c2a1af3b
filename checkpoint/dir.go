package checkpoint

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"mlpfusion/internal/disk"
)

// carried are the files that a new model takes from a tokenizer's folder: the
// tokenizer's, the defaults of generation, the file by which transformers loads
// compressed blocks and, as package task names it, which rows the model was trained on.
var carried = []string{
	"tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json",
	"vocab.txt", "vocab.json", "merges.txt",
	"spiece.model", "sentencepiece.bpe.model", "tokenizer.model",
	"chat_template.jinja", "generation_config.json", "modeling_mlpfusion.py", "trained_rows.json", ggufTokenizer,
}

// Dir is an open model directory.
type Dir struct {
	Path    string
	Config  *Config
	Weights *Reader
	Carry   []string // names of the files to carry along, as found
}

// OpenDir opens a model directory, its config.json and its weights, or a GGUF file.
func OpenDir(path string) (*Dir, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	if !info.IsDir() {
		if isGGUF(path) {
			return openGGUF(path)
		}
		return nil, fmt.Errorf("%s: expected a model directory, found a file that is not .gguf either", path)
	}
	if IsAdapter(path) {
		return nil, fmt.Errorf("%s: expected a model, found an adapter: give the model that it is for, and --adapter %s", path, path)
	}
	if !exists(configPath(path)) {
		return nil, fmt.Errorf("%s: expected a model directory with a config.json, found none", path)
	}
	config, err := ReadConfig(configPath(path))
	if err != nil {
		return nil, err
	}
	weights, err := Open(path)
	if err != nil {
		return nil, err
	}
	d := &Dir{Path: path, Config: config, Weights: weights}
	if d.Carry, err = others(path); err != nil {
		_ = d.Close() // the first error says it
		return nil, err
	}
	return d, nil
}

// NewDir describes a model that is to be made from nothing: its configuration
// file, and the folder whose tokenizer it is to have. There are no weights.
func NewDir(path, configFile string) (*Dir, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	if !info.IsDir() {
		return nil, fmt.Errorf("%s: expected a folder of tokenizer files, found a file", path)
	}
	config, err := ReadConfig(configFile)
	if err != nil {
		return nil, err
	}
	d := &Dir{Path: path, Config: config}
	for _, name := range carried {
		if exists(filepath.Join(path, name)) {
			d.Carry = append(d.Carry, name)
		}
	}
	return d, nil
}

// Close closes the weights.
func (d *Dir) Close() error {
	if d.Weights == nil {
		return nil
	}
	return d.Weights.Close()
}

// SHA256 returns the sums of the weight files, by file name, in hexadecimal.
// progress, which may be nil, is told the bytes done so far.
func (d *Dir) SHA256(ctx context.Context, progress func(bytes int64)) (map[string]string, error) {
	sums := map[string]string{}
	var done int64
	for _, f := range d.Weights.files {
		sum := sha256.New()
		whole := io.NewSectionReader(f, 0, f.size)
		_, err := io.CopyBuffer(sum, readerFunc(func(p []byte) (int, error) {
			if err := ctx.Err(); err != nil {
				return 0, err
			}
			n, err := whole.Read(p)
			if done += int64(n); progress != nil && n > 0 {
				progress(done)
			}
			return n, err
		}), make([]byte, chunk))
		if err != nil {
			return nil, err
		}
		sums[filepath.Base(f.Name())] = hex.EncodeToString(sum.Sum(nil))
	}
	return sums, nil
}

type readerFunc func([]byte) (int, error)

func (f readerFunc) Read(p []byte) (int, error) { return f(p) }

// Output is a model directory being written. All of it lies in a hidden
// directory beside its place until Commit puts it there as a whole.
type Output struct {
	Dir     string // where to write
	target  string
	lock    *disk.File
	done    bool
	replace bool
}

// CreateOutput starts a model directory at path. If something is there
// already it is an error, unless it is an empty directory, or overwrite is set
// and it is a model directory without folders of its own. The caller ends with
// Commit, or with Abort on every other way out.
func CreateOutput(path string, overwrite bool) (*Output, error) {
	if path == "" {
		return nil, errors.New("expected a directory to write, found an empty name")
	}
	given := path
	path, err := filepath.Abs(path)
	if err != nil {
		return nil, err
	}
	if real, err := filepath.EvalSymlinks(path); err == nil {
		path = real // a link to a directory stays, what it points to is replaced
	} else if info, err := os.Lstat(path); err == nil && info.Mode()&fs.ModeSymlink != 0 {
		return nil, fmt.Errorf("%s: expected a directory or a free name, found a link to nothing", given)
	}
	replace, err := mayWrite(path, given, overwrite)
	if err != nil {
		return nil, err
	}
	if err := disk.MkdirAll(filepath.Dir(path)); err != nil {
		return nil, err
	}
	dir := temporaryName(path)
	lock, err := lockTemporary(dir, false, func(name string) (*disk.File, error) {
		if err := disk.Mkdir(name); err != nil && !errors.Is(err, fs.ErrExist) {
			return nil, err
		}
		return disk.Open(name)
	})
	if err != nil {
		return nil, err
	}
	o := &Output{Dir: dir, target: path, lock: lock, replace: replace}
	if err := clearDir(dir); err != nil { // what a killed run left
		o.Abort()
		return nil, err
	}
	return o, nil
}

// mayWrite says whether the target may be created, or replaced, or why not, under
// the name that the user gave.
func mayWrite(path, given string, overwrite bool) (replace bool, err error) {
	entries, err := disk.ReadDir(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return false, nil
	case err != nil && exists(path):
		return false, fmt.Errorf("%s: expected a directory or nothing, found a file", given)
	case err != nil:
		return false, err
	case len(entries) == 0:
		return false, nil
	}
	config, err := ReadConfig(configPath(path))
	if err != nil || !config.Has("model_type") {
		return false, fmt.Errorf("%s: it exists and is no model directory, so it is not replaced; choose another name", given)
	}
	if !overwrite {
		return false, fmt.Errorf("%s: it exists already; give --overwrite to replace it, or choose another name", given)
	}
	if i := slices.IndexFunc(entries, func(e fs.DirEntry) bool { return e.IsDir() && !folders.MatchString(e.Name()) }); i >= 0 {
		return false, fmt.Errorf("%s: it holds the folder %s, which overwriting would remove; remove it first or choose another name", given, entries[i].Name())
	}
	return true, nil
}

func clearDir(dir string) error {
	entries, err := disk.ReadDir(dir)
	for _, e := range entries {
		err = errors.Join(err, disk.RemoveAll(filepath.Join(dir, e.Name())))
	}
	return err
}

// Carry copies files of a source directory, by name.
func (o *Output) Carry(from string, names []string) error {
	for _, name := range names {
		to := filepath.Join(o.Dir, name)
		err := disk.MkdirAll(filepath.Dir(to))
		switch {
		case err != nil:
		case isGGUF(from):
			err = carryGGUF(from, to)
		case name == "README.md":
			err = carryCard(filepath.Join(from, name), to)
		default:
			err = copyFile(filepath.Join(from, name), to)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func copyFile(from, to string) error {
	in, err := disk.Open(from)
	if err != nil {
		return err
	}
	defer func() { _ = in.Close() }() // only read
	out, err := CreateAtomic(to)
	if err != nil {
		return err
	}
	defer out.Abort()
	if _, err := io.Copy(out, in); err != nil {
		return err
	}
	return out.Commit()
}

// WriteConfig writes config.json.
func (o *Output) WriteConfig(c *Config) error {
	return WriteFileAtomic(configPath(o.Dir), c.Bytes())
}

// Commit puts the directory in its place: a new one by a rename, an old one by
// an exchange of the two names, after which the old one is removed.
func (o *Output) Commit() error {
	defer o.Abort()
	if err := disk.SyncDir(o.Dir); err != nil {
		return err
	}
	if o.replace {
		if err := o.swap(); err != nil {
			return err
		}
	} else if err := disk.Rename(o.Dir, o.target); err != nil {
		return fmt.Errorf("%s: renaming the finished directory to it: %w", o.target, err)
	}
	o.done = true
	err := disk.SyncDir(filepath.Dir(o.target))
	if o.replace {
		err = errors.Join(err, disk.RemoveAll(o.Dir)) // by now the old one
	}
	return errors.Join(err, o.lock.Close())
}

// swap exchanges the new and the old directory. A file system that cannot do
// so at once gets two renames; killed between the two, the old one is found
// complete under a hidden name.
func (o *Output) swap() error {
	if disk.Exchange(o.Dir, o.target) == nil {
		return nil
	}
	old := strings.TrimSuffix(o.Dir, ".tmp") + ".old"
	if err := disk.RemoveAll(old); err != nil {
		return err
	}
	if err := disk.Rename(o.target, old); err != nil {
		return err
	}
	if err := disk.Rename(o.Dir, o.target); err != nil {
		return errors.Join(err, disk.Rename(old, o.target))
	}
	return disk.Rename(old, o.Dir)
}

// Abort removes what was written. After Commit it does nothing.
func (o *Output) Abort() {
	if o.done {
		return
	}
	o.done = true
	_ = disk.RemoveAll(o.Dir)
	_ = o.lock.Close()
}
