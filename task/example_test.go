package task_test

import (
	"fmt"
	"log"
	"os"
	"path/filepath"

	"mlpfusion/task"
)

// A CSV of one's own, its columns named.
func ExampleLoad() {
	dir, err := os.MkdirTemp("", "example")
	if err != nil {
		log.Fatal(err)
	}
	defer os.RemoveAll(dir)
	for name, text := range map[string]string{
		"train.csv": "message,category\nwhere is my parcel?,delivery\nI was charged twice,billing\n",
		"dev.csv":   "message,category\nit never came,delivery\n",
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o666); err != nil {
			log.Fatal(err)
		}
	}

	spec, err := task.Lookup("text")
	if err != nil {
		log.Fatal(err)
	}
	set, err := task.Load(spec, dir, task.Columns{Text: "message", Label: "category"})
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(set.Spec.Labels)
	for _, e := range set.Train {
		fmt.Printf("%q is %s\n", e.Text, set.Spec.Labels[int(e.Label)])
	}
	fmt.Println(len(set.Dev), "to evaluate on")
	// Output:
	// [billing delivery]
	// "where is my parcel?" is delivery
	// "I was charged twice" is billing
	// 1 to evaluate on
}

// The metrics of SST-2 from logits, a row an example.
func ExampleScore() {
	spec, err := task.Lookup("sst2")
	if err != nil {
		log.Fatal(err)
	}
	logits := []float32{
		2.0, -1.0, // negative
		0.1, 0.3, // positive
		-1.0, 1.0, // positive
		0.5, 0.2, // negative
	}
	metrics, err := task.Score(spec, logits, []float32{0, 1, 1, 1})
	if err != nil {
		log.Fatal(err)
	}
	for _, m := range metrics {
		fmt.Printf("%s %.2f\n", m.Name, m.Value)
	}
	// Output: accuracy 0.75
}
