package nn

import "slices"

// arena hands out slices of large blocks and takes all of them back at once. Its
// blocks are kept, and used again in their order.
type arena struct {
	blocks []block
	at     int        // the block in use
	used   int        // of it
	total  int        // of all blocks
	idle   *[]float32 // of an idle pool's tape: what all slices share; nil: nothing
}

type block struct {
	floats []float32
	size   int
	most   int // that was ever used
}

func (a *arena) alloc(n int) []float32 {
	for ; a.at < len(a.blocks); a.at, a.used = a.at+1, 0 {
		if b := &a.blocks[a.at]; a.used+n <= b.size {
			from := a.used
			a.used += (n + 15) &^ 15 // keep slices 64-byte aligned
			b.most = max(b.most, min(a.used, b.size))
			if a.idle != nil {
				return share(a.idle, n)
			}
			return b.floats[from : from+n : from+n]
		}
	}
	// As large as all before: few blocks, and what is never used of the last one is
	// memory that the system never gives.
	b := block{size: max(n, a.total, 1<<18)}
	if a.idle == nil {
		b.floats = make([]float32, b.size)
	}
	a.blocks, a.total = append(a.blocks, b), a.total+b.size
	return a.alloc(n)
}

// share returns n floats that others have too.
func share(all *[]float32, n int) []float32 {
	if len(*all) < n {
		*all = make([]float32, n)
	}
	return (*all)[:n:n]
}

// floats is what has been used at most.
func (a *arena) floats() (n int) {
	for i := range a.blocks {
		n += a.blocks[i].most
	}
	return n
}

// reset takes everything back.
func (a *arena) reset() { a.at, a.used = 0, 0 }

// returnTo takes back what was handed out since a was as before.
func (a *arena) returnTo(before *arena) { a.at, a.used = before.at, before.used }

// freeList recycles gradient buffers: most are needed for a moment only, and another
// takes their place.
type freeList struct {
	free, all [][]float32
	idle      *[]float32 // as arena's
}

// get returns a buffer of n floats with undefined contents: the smallest free
// one that is large enough, or a new one, in the place of the smallest that is free.
func (f *freeList) get(n int) []float32 {
	best, least := -1, -1
	for i, b := range f.free {
		if cap(b) >= n && (best < 0 || cap(b) < cap(f.free[best])) {
			best = i
		}
		if least < 0 || cap(b) < cap(f.free[least]) {
			least = i
		}
	}
	if best < 0 {
		best = f.grow(n+n/4, least)
	}
	b := f.free[best]
	last := len(f.free) - 1
	f.free[best] = f.free[last]
	f.free = f.free[:last]
	return b[:n]
}

// grow puts a new buffer in the place of a free one, or of none (−1), and returns where.
func (f *freeList) grow(n, place int) int {
	var b []float32
	if f.idle != nil {
		b = share(f.idle, n)
	} else {
		b = make([]float32, n)
	}
	if place < 0 {
		f.all, f.free = append(f.all, b), append(f.free, b)
		return len(f.free) - 1
	}
	old := cap(f.free[place])
	if i := slices.IndexFunc(f.all, func(x []float32) bool { return cap(x) == old }); i >= 0 {
		f.all[i] = b
	} else { // the old one was given by a caller
		f.all = append(f.all, b)
	}
	f.free[place] = b
	return place
}

func (f *freeList) put(b []float32) {
	if b != nil {
		f.free = append(f.free, b)
	}
}

func (f *freeList) reset() {
	f.free = append(f.free[:0], f.all...)
}

// slab hands out structs and takes all of them back at once.
type slab[T any] struct {
	items []*T
	used  int
}

func (s *slab[T]) next() *T {
	if s.used == len(s.items) {
		s.items = append(s.items, new(T))
	}
	s.used++
	return s.items[s.used-1]
}

func (s *slab[T]) reset() { s.used = 0 }
