package task

// Windows cuts the tokens of one long text into windows of length tokens that begin
// stride tokens apart, as perplexities are published: each token that has one before it
// in its window is predicted once, in the first window that holds it. So with a stride
// of the length all but each window's first are predicted, and with a smaller one all
// but the first, most of them behind at least length − stride others. The last window
// ends with the text. length is at least 2, stride 1 … length.
func Windows(ids []int32, length, stride int) *Encoded {
	e := &Encoded{Offsets: []int{0}}
	predicted := 1 // tokens before this one need no prediction any more
	for begin := 0; begin+1 < len(ids) && predicted < len(ids); begin += stride {
		end := min(begin+length, len(ids))
		first := max(predicted, begin+1)
		for i := begin + 1; i < end; i++ {
			target := ids[i]
			if i < first {
				target = -1
			}
			e.IDs, e.Targets = append(e.IDs, ids[i-1]), append(e.Targets, target)
		}
		e.Offsets = append(e.Offsets, len(e.IDs))
		predicted = end
	}
	return e
}
