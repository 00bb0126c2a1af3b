package task

import (
	"slices"
	"testing"
)

func TestWindows(t *testing.T) {
	ids := []int32{10, 11, 12, 13, 14, 15, 16}
	for _, c := range []struct {
		length, stride int
		ids, targets   []int32
		offsets        []int
	}{
		{3, 3, []int32{10, 11, 13, 14}, []int32{11, 12, 14, 15}, []int{0, 2, 4}}, // 16 would be a window's first
		{5, 2, []int32{10, 11, 12, 13, 12, 13, 14, 15}, []int32{11, 12, 13, 14, -1, -1, 15, 16}, []int{0, 4, 8}},
		{4, 3, []int32{10, 11, 12, 13, 14, 15}, []int32{11, 12, 13, 14, 15, 16}, []int{0, 3, 6}},
		{7, 7, ids[:6], ids[1:], []int{0, 6}},
		{9, 1, ids[:6], ids[1:], []int{0, 6}},
	} {
		e := Windows(ids, c.length, c.stride)
		if !slices.Equal(e.IDs, c.ids) || !slices.Equal(e.Targets, c.targets) || !slices.Equal(e.Offsets, c.offsets) {
			t.Errorf("windows of %d every %d: %v, %v, %v, want %v, %v, %v", c.length, c.stride, e.IDs, e.Targets, e.Offsets, c.ids, c.targets, c.offsets)
		}
	}
	if e := Windows(ids[:1], 4, 4); e.Len() != 0 {
		t.Errorf("one token makes %d windows, want none", e.Len())
	}
}
