package tokenize

import "fmt"

// trie is a prefix tree over bytes. Its edges lie in one open-addressing hash
// table, so a step is about one memory access whatever the vocabulary.
type trie struct {
	edges []edge  // a power of two
	used  int     // edges in the table
	ids   []int32 // for each node the id of the string that ends there, or -1
}

type edge struct{ key, node uint32 }

// noEdge marks a free place: no node has this number.
const (
	noEdge   = ^uint32(0)
	maxNodes = 1 << 24
)

func newTrie() *trie {
	t := &trie{ids: []int32{-1}}
	t.resize(256)
	return t
}

func (t *trie) resize(n int) {
	old := t.edges
	t.edges = make([]edge, n)
	for i := range t.edges {
		t.edges[i].key = noEdge
	}
	for _, e := range old {
		if e.key != noEdge {
			t.edges[t.place(e.key)] = e
		}
	}
}

// place is where the edge with this key is, or would go.
func (t *trie) place(key uint32) int {
	mask := len(t.edges) - 1
	h := key * 0x9E3779B1
	i := int(h^h>>15) & mask
	for t.edges[i].key != key && t.edges[i].key != noEdge {
		i = (i + 1) & mask
	}
	return i
}

// step follows the edge of node that is labelled b; ok is false when there is
// none.
func (t *trie) step(node uint32, b byte) (next uint32, ok bool) {
	e := t.edges[t.place(node<<8|uint32(b))]
	return e.node, e.key != noEdge
}

// insert stores id for s; a later insert of the same string wins.
func (t *trie) insert(s string, id int32) error {
	node := uint32(0)
	for i := range len(s) {
		next, ok := t.step(node, s[i])
		if !ok {
			if len(t.ids) == maxNodes-1 {
				return fmt.Errorf("expected vocabulary strings with fewer than %d bytes in all, found more", maxNodes)
			}
			if t.used++; 2*t.used > len(t.edges) {
				t.resize(2 * len(t.edges))
			}
			next = uint32(len(t.ids))
			key := node<<8 | uint32(s[i])
			t.edges[t.place(key)] = edge{key, next}
			t.ids = append(t.ids, -1)
		}
		node = next
	}
	t.ids[node] = id
	return nil
}

// longest finds the longest stored string that b begins with, below node;
// length 0 means none. The empty string is never found.
func (t *trie) longest(node uint32, b []byte) (id int32, length int) {
	id = -1
	for i, c := range b {
		next, ok := t.step(node, c)
		if !ok {
			break
		}
		if node = next; t.ids[node] >= 0 {
			id, length = t.ids[node], i+1
		}
	}
	return id, length
}
