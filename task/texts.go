package task

import (
	"fmt"
	"os"
)

// LoadTexts reads texts without labels from a table (.tsv, .csv, .jsonl, .json or
// .parquet): the columns that cols names, or else "text" or "sentence".
func LoadTexts(path string, cols Columns) ([]Example, error) {
	if info, err := os.Stat(path); err == nil && info.IsDir() {
		return nil, fmt.Errorf("%s: expected a file, found a folder", path)
	}
	d := &Dataset{Spec: Spec{Name: genericTask, Text: []string{"text", "sentence"}}.with(cols)}
	d.Spec.Label = nil
	rows, err := d.readFile(path)
	if err == nil && len(rows) == 0 {
		err = fmt.Errorf("%s: %w", path, errEmpty)
	}
	if err != nil {
		return nil, err
	}
	examples := make([]Example, len(rows))
	for i := range rows {
		examples[i] = rows[i].example()
	}
	return examples, nil
}
