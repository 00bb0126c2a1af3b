package model_test

import (
	"slices"
	"testing"

	"mlpfusion/model"
)

func TestNewInput(t *testing.T) {
	in := model.NewInput([]int32{2, 7, 3}, nil, []int32{2, 3})
	if want := []int32{2, 7, 3, 2, 3}; !slices.Equal(in.IDs, want) {
		t.Errorf("ids: expected %v, found %v", want, in.IDs)
	}
	if want := []int32{0, 3, 3, 5}; !slices.Equal(in.Offsets, want) {
		t.Errorf("offsets: expected %v, found %v", want, in.Offsets)
	}
	if in := model.NewInput(); !slices.Equal(in.Offsets, []int32{0}) || len(in.IDs) != 0 {
		t.Errorf("no sequence: expected an empty batch, found %+v", in)
	}
}
