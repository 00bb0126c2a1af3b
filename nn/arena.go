package nn

// arena hands out slices of one large block and takes all of them back at once.
type arena struct {
	blocks [][]float32
	used   int // of the last block
	total  int // handed out since reset
}

func (a *arena) alloc(n int) []float32 {
	if last := len(a.blocks) - 1; last >= 0 && a.used+n <= len(a.blocks[last]) {
		s := a.blocks[last][a.used : a.used+n : a.used+n]
		a.used += (n + 15) &^ 15 // keep slices 64-byte aligned
		a.total += n + 16
		return s
	}
	a.blocks = append(a.blocks, make([]float32, max(n+16, 1<<18)))
	a.used = 0
	return a.alloc(n)
}

// reset takes everything back. When several blocks were needed they become one
// that holds them all, so that allocation ends after the first steps.
func (a *arena) reset() {
	if len(a.blocks) > 1 {
		total := a.total
		a.blocks = a.blocks[:0:0]
		a.blocks = append(a.blocks, make([]float32, total+total/8))
	}
	a.used, a.total = 0, 0
}

// freeList recycles gradient buffers, which live shortly and in turn.
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
