package task

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"mlpfusion/metric"
	"mlpfusion/tokenize"
)

// Entry is what generation is evaluated on: a prompt with all the texts that
// people wrote for it.
type Entry struct {
	Prompt     string
	Category   string // WebNLG's, else ""
	References []string
}

// Entries gathers the examples of a generation task by their entry, in order of
// first appearance.
func Entries(examples []Example) []Entry {
	var entries []Entry
	at := map[int]int{}
	for _, e := range examples {
		i, ok := at[e.Entry]
		if !ok {
			i = len(entries)
			at[e.Entry] = i
			entries = append(entries, Entry{Prompt: e.Text, Category: e.Category})
		}
		entries[i].References = append(entries[i].References, e.Target)
	}
	return entries
}

// seenCategories are those of WebNLG 2017's training data; the other categories
// of its test data are the unseen ones.
var seenCategories = []string{"Airport", "Astronaut", "Building", "City", "ComicsCharacter",
	"Food", "Monument", "SportsTeam", "University", "WrittenWork"}

// Seen tells whether WebNLG 2017's training data has entries of the category.
func Seen(category string) bool { return slices.Contains(seenCategories, category) }

// texts are the examples of one split as they are read.
type texts struct {
	examples []Example
	entries  int
	size     int
	skipped  int
}

// add adds an example.
func (t *texts) add(e Example) error {
	for _, m := range e.Turns {
		t.size += len(m.Content) + rowBytes
	}
	if t.size += len(e.Text) + len(e.Target) + rowBytes; t.size > maxData {
		return fmt.Errorf("expected at most %d bytes of texts, found more", maxData)
	}
	e.Text, e.Target, e.Category = tokenize.Valid(e.Text), tokenize.Valid(e.Target), tokenize.Valid(e.Category)
	t.examples = append(t.examples, e)
	return nil
}

// source says how the files of a generation task are called and read. read adds
// a file's examples; its errors name the file.
type source struct {
	endings []string
	read    func(d *Dataset, path string, f file, to *texts) error
}

var sources = map[string]source{
	"webnlg": {[]string{".xml", ".json"}, readWebNLG},
	"e2e":    {[]string{".csv", ".txt"}, readE2E},
	"chat":   {[]string{".jsonl", ".json", ".parquet"}, readConversations},
	"lm":     {[]string{".txt", ".jsonl", ".json", ".csv", ".tsv", ".parquet"}, readDocuments},
}

// find returns the files of the first of the names that has any: name.ENDING in
// the folder, or all the files with such endings in the folder name.
func (s source) find(dir string, names []string) (files []string, name string, err error) {
	for _, name := range names {
		for _, ending := range s.endings {
			file := filepath.Join(dir, name+ending)
			if info, err := os.Stat(file); err == nil && info.Mode().IsRegular() {
				return []string{file}, name, nil
			}
		}
		folder := filepath.Join(dir, name)
		if info, err := os.Stat(folder); err != nil || !info.IsDir() {
			continue
		}
		// WebNLG's test folder has its entries three times: without texts, all,
		// and the unseen ones.
		all := filepath.Join(folder, "testdata_with_lex.xml")
		if _, err := os.Stat(all); err == nil {
			return []string{all}, name, nil
		}
		err := filepath.WalkDir(folder, func(path string, e fs.DirEntry, err error) error {
			if err == nil && e.Type().IsRegular() && slices.Contains(s.endings, strings.ToLower(filepath.Ext(path))) {
				files = append(files, path)
			}
			return err
		})
		if err != nil || len(files) > 0 {
			return files, name, err
		}
	}
	return nil, "", nil
}

func (d *Dataset) readTexts(src source, files []string) ([]Example, error) {
	t := &texts{}
	for _, path := range files {
		before := len(t.examples)
		f, err := open(path)
		if err != nil {
			return nil, err
		}
		err = src.read(d, path, f, t)
		f.Close() //nolint:errcheck // only read
		if err != nil {
			return nil, err
		}
		if len(t.examples) == before {
			return nil, fmt.Errorf("%s: expected at least one entry with a text, found none", path)
		}
	}
	d.Skipped += t.skipped
	return t.examples, nil
}

// Scores are the metrics of the texts written for some entries.
type Scores struct {
	Split   string   `json:"split"` // all, or WebNLG's seen and unseen categories
	Entries int      `json:"entries"`
	Metrics []Metric `json:"metrics"`
}

// textScorers are what users of each task report, in their tokenization. BLEU,
// TER and chrF++ are percentages.
var textScorers = map[string][]struct {
	name  string
	score func([]metric.Segment) float64
}{
	"webnlg": {
		{"BLEU", func(s []metric.Segment) float64 { return metric.BLEU(s, metric.TokenizeWebNLG, false) }},
		{"METEOR (exact, stem)", func(s []metric.Segment) float64 { return metric.METEOR(s, metric.TokenizeWebNLG) }},
		{"TER", func(s []metric.Segment) float64 { return metric.TER(s, metric.TokenizeWebNLG) }},
		{"chrF++", func(s []metric.Segment) float64 { return metric.CHRF(s, 2) }},
	},
	"e2e": {
		{"BLEU", func(s []metric.Segment) float64 { return metric.BLEU(s, metric.Lower(metric.Tokenize13a), false) }},
		{"NIST", func(s []metric.Segment) float64 { return metric.NIST(s, metric.Lower(metric.Tokenize13a)) }},
		{"METEOR (exact, stem)", func(s []metric.Segment) float64 { return metric.METEOR(s, metric.Lower(metric.Tokenize13a)) }},
		{"ROUGE-L", func(s []metric.Segment) float64 { return metric.ROUGEL(s, metric.Lower(metric.Tokenize13a)) }},
		{"CIDEr", func(s []metric.Segment) float64 { return metric.CIDEr(s, metric.Lower(metric.Tokenize13a)) }},
	},
}

// ScoreTexts computes a generation task's metrics of one text for each entry: of
// all, and of WebNLG also of the seen and the unseen categories when there are
// both.
func ScoreTexts(spec Spec, entries []Entry, written []string) ([]Scores, error) {
	if len(written) != len(entries) {
		return nil, fmt.Errorf("score of %s: expected a text for each of %d entries, found %d", spec.Name, len(entries), len(written))
	}
	if len(entries) == 0 {
		return nil, fmt.Errorf("score of %s: expected at least one entry, found none", spec.Name)
	}
	parts := map[string][]metric.Segment{}
	for i, e := range entries {
		s := metric.Segment{Hypothesis: written[i], References: e.References}
		parts["all"] = append(parts["all"], s)
		if e.Category != "" {
			if Seen(e.Category) {
				parts["seen"] = append(parts["seen"], s)
			} else {
				parts["unseen"] = append(parts["unseen"], s)
			}
		}
	}
	var out []Scores
	for _, name := range []string{"all", "seen", "unseen"} {
		segments := parts[name]
		if len(segments) == 0 || name != "all" && len(segments) == len(entries) {
			continue
		}
		scores := Scores{Split: name, Entries: len(segments)}
		for _, m := range textScorers[spec.Name] {
			scores.Metrics = append(scores.Metrics, Metric{m.name, m.score(segments)})
		}
		out = append(out, scores)
	}
	return out, nil
}
