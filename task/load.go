package task

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"mlpfusion/internal/disk"
	"mlpfusion/tokenize"
)

// Columns names the columns to read where the task's own names do not hold.
// Empty names keep the task's; a Pair of a task without one makes it one of
// pairs.
type Columns struct{ Text, Pair, Label string }

// Dataset is a task's data.
type Dataset struct {
	Spec    Spec // with the labels found, for the task "text"
	Train   []Example
	Dev     []Example
	DevName string    // the file name without its ending, such as dev_matched
	Extra   []Split   // further development splits (MNLI's mismatched)
	Test    []Example // of generation tasks
	Notes   []string  // on how the files were read, for people
	Skipped int       // rows left out because they lack a column (QQP), texts not marked good (WebNLG)

	scored bool // only to be scored: labels may be as few as one
}

// Split is a named part of a data set.
type Split struct {
	Name     string
	Examples []Example
}

// Load reads the data set in a folder: the splits train and dev (or validation,
// valid, val; for MNLI also the mismatched one), each as .tsv, .csv, .jsonl, .json
// (a list of objects, or an object a line) or Parquet, in the folder itself, in
// data/, or in the task's folder of the Hub. STS-B's sts-train.csv and sts-dev.csv
// are read as what they are, tab-separated. A split that is not there stays empty,
// but one must be. A path to a file is read as the training split.
//
// Generation tasks also have a test split, and files of their own: WebNLG's
// folders of XML or LoRA's JSON, E2E's CSV or LoRA's text. The task "lm" reads
// text files, or a table's column text; "chat" conversations of JSON or Parquet.
//
// Errors name the file, the line or row, the column, what was expected and what
// was found.
func Load(spec Spec, path string, cols Columns) (*Dataset, error) {
	d := &Dataset{Spec: spec.with(cols)}
	info, err := stat(path)
	if err != nil {
		return nil, err
	}
	if !info.IsDir() {
		d.Train, err = d.readSplit([]string{path})
		return d, err
	}
	for _, s := range []struct {
		names []string
		to    *[]Example
	}{{trainNames, &d.Train}, {d.Spec.Dev, &d.Dev}, {d.Spec.Test, &d.Test}} {
		if s.to == &d.Test && !d.Spec.LanguageModel() {
			continue // labels of test sets are seldom published
		}
		name, err := d.readNamed(path, s.names, s.to)
		if err != nil {
			return nil, err
		}
		if s.to == &d.Dev {
			d.DevName = name
		}
	}
	if err := d.readExtra(path); err != nil {
		return nil, err
	}
	if len(d.Train)+len(d.Dev)+len(d.Test)+len(d.Extra) == 0 {
		return nil, fmt.Errorf("%s: expected a train or %s file (%s), found none", path, d.Spec.Dev[0], strings.Join(d.endings(), ", "))
	}
	return d, nil
}

// LoadSplit reads the rows that a model is to be scored on, as the split Dev: all
// of a file, or of a folder the split of this name. Without a name it is the dev
// split, else what HoldOut holds out of the training split, else the test split.
// The labels of the task "text" are those of these rows.
func LoadSplit(spec Spec, path, split string, cols Columns) (*Dataset, error) {
	d := &Dataset{Spec: spec.with(cols), scored: true}
	info, err := stat(path)
	if err != nil {
		return nil, err
	}
	if !info.IsDir() {
		if split != "" {
			return nil, fmt.Errorf("%s: expected a folder with the split %s, found a file", path, split)
		}
		d.DevName = strings.TrimSuffix(filepath.Base(path), filepath.Ext(path))
		d.Dev, err = d.readSplit([]string{path})
		return d, err
	}
	names := []string{split}
	switch {
	case split == "" || slices.Contains(d.Spec.Dev, split):
		if names = d.Spec.Dev; split != "" {
			names = append([]string{split}, names...)
		}
	case split == "train":
		names = trainNames
	case slices.Contains(d.Spec.Test, split):
		names = d.Spec.Test
	}
	if d.DevName, err = d.readNamed(path, names, &d.Dev); err != nil {
		return nil, err
	}
	if split == "" {
		if err := d.readExtra(path); err != nil {
			return nil, err
		}
		if len(d.Dev)+len(d.Extra) == 0 {
			if _, err := d.readNamed(path, trainNames, &d.Train); err != nil {
				return nil, err
			}
			d.HoldOut()
			d.Train = nil
		}
		if len(d.Dev)+len(d.Extra) == 0 {
			if d.DevName, err = d.readNamed(path, d.Spec.Test, &d.Dev); err != nil {
				return nil, err
			}
		}
	}
	if len(d.Dev)+len(d.Extra) == 0 {
		return nil, fmt.Errorf("%s: expected a file %s (%s), found none", path, quoted(names, " or "), strings.Join(d.endings(), ", "))
	}
	return d, nil
}

// readExtra reads the further development split of a task that has one.
func (d *Dataset) readExtra(path string) error {
	var examples []Example
	name, err := d.readNamed(path, d.Spec.Extra, &examples)
	if len(examples) > 0 {
		d.Extra = []Split{{name, examples}}
	}
	return err
}

// readNamed reads the split of the first of the names that has files.
func (d *Dataset) readNamed(path string, names []string, to *[]Example) (name string, err error) {
	var files []string
	if d.Spec.LanguageModel() && !d.Spec.Chat {
		files, name, err = sources[d.Spec.Name].find(path, names)
	} else {
		files, name = d.find(path, names)
	}
	if err == nil && len(files) > 0 {
		*to, err = d.readSplit(files)
	}
	return name, err
}

// readSplit reads the files of one split.
func (d *Dataset) readSplit(files []string) ([]Example, error) {
	if d.Spec.LanguageModel() {
		return d.readTexts(sources[d.Spec.Name], files)
	}
	return d.read(files)
}

// endings are those of the task's files.
func (d *Dataset) endings() []string {
	if d.Spec.LanguageModel() {
		return sources[d.Spec.Name].endings
	}
	return []string{".tsv", ".csv", ".jsonl", ".json", ".parquet"}
}

// with puts the names of cols in the place of the task's own.
func (s Spec) with(cols Columns) Spec {
	for _, c := range []struct {
		name string
		to   *[]string
	}{{cols.Text, &s.Text}, {cols.Pair, &s.Pair}, {cols.Label, &s.Label}} {
		if c.name != "" {
			*c.to = []string{c.name}
			s.Plain = nil // a named column needs a header
		}
	}
	return s
}

// find returns the files of the first of the names that has any.
func (d *Dataset) find(dir string, names []string) (files []string, name string) {
	for _, name := range names {
		for _, folder := range []string{dir, filepath.Join(dir, d.Spec.Config), filepath.Join(dir, "data")} {
			for _, ending := range d.endings() {
				for _, file := range []string{name + ending, "sts-" + name + ending} {
					path := filepath.Join(folder, file)
					if info, err := os.Stat(path); err == nil && info.Mode().IsRegular() {
						return []string{path}, name
					}
				}
			}
			entries, err := disk.ReadDir(folder)
			if err != nil {
				continue
			}
			for _, e := range entries { // sorted by name, so by shard
				if strings.HasPrefix(e.Name(), name+"-") && strings.HasSuffix(e.Name(), ".parquet") {
					files = append(files, filepath.Join(folder, e.Name()))
				}
			}
			if len(files) > 0 {
				return files, name
			}
		}
	}
	return nil, ""
}

// read reads the files of one split; none give no examples.
func (d *Dataset) read(files []string) ([]Example, error) {
	var all []row
	for _, path := range files {
		rows, err := d.readFile(path)
		if err != nil {
			return nil, err
		}
		if len(rows) == 0 {
			return nil, fmt.Errorf("%s: expected at least one row, found an empty data set", path)
		}
		all = append(all, rows...)
	}
	if !d.Spec.Regression && d.Spec.Labels == nil && len(all) > 0 {
		found := map[string]bool{}
		for _, r := range all {
			if strings.TrimSpace(r.label) == "" {
				return nil, fmt.Errorf("%s: %s %d: column %q: expected a label, found none", r.path, r.unit, r.line, r.column)
			}
			found[labelName(r.label)] = true
		}
		for label := range found {
			d.Spec.Labels = append(d.Spec.Labels, label)
		}
		sortLabels(d.Spec.Labels)
		if len(found) < 2 && !d.scored || len(found) > maxLabels {
			return nil, fmt.Errorf("%s: column %q: expected 2 to %d labels, found %d", all[0].path, all[0].column, maxLabels, len(found))
		}
	}
	if len(all) == 0 {
		return nil, nil
	}
	examples := make([]Example, len(all))
	read := d.Spec.labels()
	for i, r := range all {
		label, err := read(r.label)
		if err != nil {
			return nil, fmt.Errorf("%s: %s %d: column %q: %w", r.path, r.unit, r.line, r.column, err)
		}
		examples[i] = r.example()
		examples[i].Label = label
	}
	return examples, nil
}

// maxLabels keeps a column of free text from being taken for labels.
const maxLabels = 1000

// sortLabels sorts by number when all labels are numbers, else by name.
func sortLabels(labels []string) {
	numeric := true
	for _, l := range labels {
		_, err := strconv.ParseFloat(l, 64)
		numeric = numeric && err == nil
	}
	slices.SortFunc(labels, func(a, b string) int {
		x, _ := strconv.ParseFloat(a, 64)
		y, _ := strconv.ParseFloat(b, 64)
		switch {
		case numeric && x < y:
			return -1
		case numeric && x > y:
			return 1
		}
		return strings.Compare(a, b)
	})
}

// labels returns what reads a label cell: a number, or a class by its name. Of a
// task that itself names its classes it may also be the class's place.
func (s Spec) labels() func(cell string) (float32, error) {
	if s.Regression {
		return func(cell string) (float32, error) {
			v, err := strconv.ParseFloat(strings.TrimSpace(cell), 32)
			if err != nil || math.IsNaN(v) || math.IsInf(v, 0) {
				return 0, fmt.Errorf("expected a number, found %q", cell)
			}
			return float32(v), nil
		}
	}
	place, of := map[string]int{}, " of the training set"
	name := labelName
	if s.Name != genericTask {
		of, name = "", func(cell string) string { return strings.ToLower(labelName(cell)) }
		for i := range s.Labels {
			place[strconv.Itoa(i)] = i
		}
	}
	for i, l := range s.Labels {
		place[name(l)] = i
	}
	return func(cell string) (float32, error) {
		i, ok := place[name(cell)]
		if !ok {
			return 0, fmt.Errorf("expected one of the labels %s%s, found %q", strings.Join(s.Labels, ", "), of, cell)
		}
		return float32(i), nil
	}
}

// labelName is the name of a class as it is compared: numbers by their value,
// truth values without regard to case, all without white space around.
func labelName(cell string) string {
	cell = strings.TrimSpace(cell)
	const mostExact = 1 << 53
	if v, err := strconv.ParseFloat(cell, 64); err == nil && strings.ContainsAny(cell, "0123456789") && math.Abs(v) < mostExact {
		return strconv.FormatFloat(v, 'f', -1, 64)
	}
	for _, truth := range []string{"true", "false"} {
		if strings.EqualFold(cell, truth) {
			return truth
		}
	}
	return cell
}

// row is a row of a file before its label is understood.
type row struct {
	path, unit, column string // unit: "line" or "row"
	line               int
	text, pair, label  string
	hasPair            bool
}

// example is the row without its label.
func (r *row) example() Example {
	return Example{Text: tokenize.Valid(r.text), Pair: tokenize.Valid(r.pair), HasPair: r.hasPair,
		Place: fmt.Sprintf("%s: %s %d", filepath.Base(r.path), r.unit, r.line)}
}

// maxData bounds the rows of one file in memory, in bytes. A small Parquet file can
// hold any number of equal rows: above some size one may expand maxExpansion times.
const (
	maxData      = 8 << 30
	rowBytes     = 128
	maxExpansion = 100
)

// fromExpansion is that size; tests make it smaller.
var fromExpansion = 1 << 30

// table is an open file of rows.
type table struct {
	unit   string   // what its rows are counted in
	header []string // column names; nil: the file has none
	bytes  int64    // of a file that is compressed
	// next returns the number of the next row and its cells; the error is io.EOF
	// at the end. A cell that the row lacks is not ok.
	next func() (line int, cell func(column int) (text string, ok bool), err error)
	// value is what the row that next returned last has under a key, as JSON; nil if
	// nothing. Only JSON and Parquet files have it.
	value func(key string) json.RawMessage
}

func (d *Dataset) readFile(path string) ([]row, error) {
	f, err := open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close() //nolint:errcheck // only read
	return d.readTable(path, f)
}

// stat is os.Stat whose error says what a path of data should be.
func stat(path string) (fs.FileInfo, error) {
	info, err := os.Stat(path)
	var p *fs.PathError
	switch {
	case errors.Is(err, fs.ErrNotExist):
		err = fmt.Errorf("%s: expected a file or a folder, found none", path)
	case errors.As(err, &p):
		err = fmt.Errorf("%s: expected a readable file or folder: %w", path, p.Err)
	}
	return info, err
}

func open(path string) (*disk.File, error) {
	f, err := disk.Open(path)
	var p *fs.PathError
	if errors.As(err, &p) {
		err = fmt.Errorf("%s: expected a readable file: %w", path, p.Err)
	}
	return f, err
}

func (d *Dataset) readTable(path string, f file) ([]row, error) {
	t, err := openTable(path, f, d.Spec)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	text, pair, label, column, err := d.places(t)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	var rows []row
	size := 0
	for {
		line, cell, err := t.next()
		if err == io.EOF {
			return rows, nil
		}
		if err != nil {
			return nil, fmt.Errorf("%s: %w", path, err)
		}
		r := row{path: path, unit: t.unit, line: line, hasPair: pair >= 0}
		if label >= 0 {
			r.column = column(label)
		}
		short := -1
		for _, c := range []struct {
			place int
			to    *string
		}{{text, &r.text}, {pair, &r.pair}, {label, &r.label}} {
			if c.place < 0 {
				continue
			}
			var ok bool
			if *c.to, ok = cell(c.place); !ok {
				short = c.place
			}
		}
		if size += len(r.text) + len(r.pair) + rowBytes; size > maxData {
			return nil, fmt.Errorf("%s: expected at most %d bytes of rows, found more", path, maxData)
		}
		if t.bytes > 0 && size > fromExpansion && int64(size) > maxExpansion*t.bytes {
			return nil, fmt.Errorf("%s: expected rows of at most %d times the file's %d bytes, found more", path, maxExpansion, t.bytes)
		}
		switch {
		case short < 0:
			rows = append(rows, r)
		case d.Spec.SkipShort:
			d.Skipped++
		default:
			return nil, fmt.Errorf("%s: %s %d: expected the column %q, found a row without it", path, t.unit, line, column(short))
		}
	}
}

// places finds the columns of the texts and the label, and how to call them.
func (d *Dataset) places(t *table) (text, pair, label int, column func(int) string, err error) {
	if t.header == nil {
		p := d.Spec.Plain
		return p.Text, p.Pair, p.Label, func(i int) string { return strconv.Itoa(i + 1) }, nil
	}
	at := func(names []string, flag string) int {
		for _, n := range names {
			i := slices.Index(t.header, n)
			if i < 0 {
				continue
			}
			if slices.Contains(t.header[i+1:], n) && err == nil {
				err = fmt.Errorf("expected the column %q once, found it several times", n)
			}
			return i
		}
		if err == nil {
			err = fmt.Errorf("expected a column %s (or another that --%s names), found %s", quoted(names, " or "), flag, quoted(t.header, ", "))
		}
		return -1
	}
	text, pair, label = at(d.Spec.Text, "text"), -1, -1
	if len(d.Spec.Pair) > 0 {
		pair = at(d.Spec.Pair, "text-pair")
	}
	if len(d.Spec.Label) > 0 {
		label = at(d.Spec.Label, "label")
	}
	return text, pair, label, func(i int) string { return t.header[i] }, err
}

func quoted(names []string, between string) string {
	const most = 20
	out := make([]string, 0, most)
	for i, n := range names {
		if i == most {
			out = append(out, "…")
			break
		}
		if len(n) > 100 {
			n = n[:100] + "…"
		}
		out = append(out, strconv.Quote(n))
	}
	return strings.Join(out, between)
}
