package nn

// arena hands out slices of large blocks and takes all of them back at once. Its
// blocks are kept, and used again in their order.
type arena struct {
	blocks [][]float32
	at     int // the block in use
	used   int // of it
	total  int // of all blocks
}

func (a *arena) alloc(n int) []float32 {
	for ; a.at < len(a.blocks); a.at, a.used = a.at+1, 0 {
		if b := a.blocks[a.at]; a.used+n <= len(b) {
			s := b[a.used : a.used+n : a.used+n]
			a.used += (n + 15) &^ 15 // keep slices 64-byte aligned
			return s
		}
	}
	// As large as all before: few blocks, and what is never used of the last one is
	// memory that the system never gives.
	size := max(n, a.total, 1<<18)
	a.blocks, a.total = append(a.blocks, make([]float32, size)), a.total+size
	return a.alloc(n)
}

// reset takes everything back.
func (a *arena) reset() { a.at, a.used = 0, 0 }

// returnTo takes back what was handed out since a was as before.
func (a *arena) returnTo(before *arena) { a.at, a.used = before.at, before.used }

// freeList recycles gradient buffers: most are needed for a moment only, and another
// takes their place.
type freeList struct {
	free, all [][]float32
}

// get returns a buffer of n floats with undefined contents: the smallest free
// one that is large enough, or a new one.
func (f *freeList) get(n int) []float32 {
	best := -1
	for i, b := range f.free {
		if cap(b) >= n && (best < 0 || cap(b) < cap(f.free[best])) {
			best = i
		}
	}
	if best < 0 {
		b := make([]float32, n+n/4)
		f.all = append(f.all, b)
		return b[:n]
	}
	b := f.free[best]
	last := len(f.free) - 1
	f.free[best] = f.free[last]
	f.free = f.free[:last]
	return b[:n]
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
