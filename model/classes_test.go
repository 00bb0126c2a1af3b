package model

import (
	"slices"
	"testing"

	"mlpfusion/checkpoint"
)

// Of a head for other classes the layer with a row a class is made anew, all else
// is read.
func TestOtherClasses(t *testing.T) {
	dir, err := checkpoint.OpenDir("testdata/bert")
	if err != nil {
		t.Fatal(err)
	}
	defer dir.Close()
	opt := LoadOptions{Head: Classification, Labels: []string{"a", "b"}, NewHead: true, Seed: 1}
	kept, report, err := Load(dir, opt)
	if err != nil || len(report.New) > 0 {
		t.Fatalf("made anew %v, %v", report, err)
	}
	opt.OtherClasses = true
	made, report, err := Load(dir, opt)
	if err != nil || !slices.Equal(report.New, []string{"classifier.weight", "classifier.bias"}) {
		t.Fatalf("made anew %v, %v", report, err)
	}
	for i, tensor := range made.Tensors {
		same := slices.Equal(tensor.Param.Data, kept.Tensors[i].Param.Data)
		if same == slices.Contains(report.New, tensor.Name) {
			t.Errorf("%s: as in the checkpoint: %t", tensor.Name, same)
		}
	}
}
