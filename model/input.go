package model

// NewInput lays sequences of token ids end to end, all of token type 0: the batch that
// Forward takes. A pair of texts needs Types too.
func NewInput(sequences ...[]int32) *Input {
	in := &Input{Offsets: make([]int32, 1, len(sequences)+1)}
	for _, ids := range sequences {
		in.IDs = append(in.IDs, ids...)
		in.Offsets = append(in.Offsets, int32(len(in.IDs)))
	}
	return in
}
