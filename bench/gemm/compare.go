package main

import (
	"fmt"
	"os"
	"regexp"
	"slices"
	"strings"
	"time"

	"mlpfusion/bench/internal/fma"
	"mlpfusion/bench/internal/peer"
	"mlpfusion/bench/internal/results"
)

// shape is a product of fine-tuning MiniLM (384, 1536) or BERT-base (768, 3072): a
// linear layer is "nt", its input's gradient "nn", its weight's "tn". 425 tokens are a
// batch of 32 sentences of SST-2, 4096 one of 32×128, 25 a sentence of its dev set.
type shape struct {
	m, n, k int
	trans   string
}

var (
	shapes = slices.Concat([]shape{
		{425, 384, 384, "nt"},
		{425, 1536, 384, "nt"},
		{425, 384, 1536, "nt"},
		{425, 384, 1536, "nn"},
		{425, 1536, 384, "nn"},
		{384, 1536, 425, "tn"},
		{1536, 384, 425, "tn"},
		{425, 768, 768, "nt"},
		{425, 3072, 768, "nt"},
	}, large, few, []shape{
		{4096, 768, 3072, "nt"},
		{4096, 3072, 768, "nt"},
		{768, 3072, 4096, "tn"},
	})
	large = []shape{
		{425, 768, 3072, "nt"},
		{425, 768, 3072, "nn"},
		{768, 3072, 425, "tn"},
	}
	few = []shape{
		{25, 768, 3072, "nt"},
		{25, 3072, 768, "nt"},
		{25, 768, 3072, "nn"},
	}
)

// kinds are what is compared, by a request's prec, and for which shapes; note says
// it in words, above the table.
var kinds = []struct {
	prec   string
	shapes []shape
	note   string
}{
	{"fp32", shapes, "both have float32 operands; PyTorch multiplies them with MKL."},
	{"bf16", shapes, "PyTorch, with oneDNN, has its operands in bfloat16 before the clock starts; ours are float32 and rounded on the way."},
	{"bf16 autocast", slices.Concat(few, large), "both have float32 operands. PyTorch casts A and B to bfloat16 and multiplies those: a linear layer (nt) under" +
		" autocast without its cache, else .to(bfloat16) and mm. (In training it would keep the forward pass's casts for the backward one.)"},
	{"bf16 packed", few, "PyTorch as in bf16; ours has B, a weight that stays, rounded and packed before the clock starts (PackB), and A float32."},
}

// row is one line of a comparison, medians over its rounds.
type row struct {
	request
	Ours  float64 `json:"ours"`  // GFLOPS
	Peer  float64 `json:"peer"`  // GFLOPS
	Ratio float64 `json:"ratio"` // median of the rounds' ours/peer
	Best  float64 `json:"best"`  // the same of the fastest runs, for a machine that others use
	Fast  float64 `json:"fast"`  // ours, fastest run, GFLOPS
	Peak  float64 `json:"peak"`  // GFLOPS of multiply-adds alone, same precision and threads; 0: not known
}

// compare alternates with the peer, prints a table and keeps it in the folder out.
func compare(command string, rounds int, seconds float64, out string, bf16 bool, only string) error {
	chosen, err := regexp.Compile(only)
	if err != nil {
		return err
	}
	words := strings.Fields(command)
	theirs, err := peer.Start(words[0], words[1:]...)
	if err != nil {
		return err
	}
	var rows []row
	for _, kind := range kinds {
		if kind.prec != "fp32" && !bf16 {
			continue
		}
		for _, s := range kind.shapes {
			if !chosen.MatchString(fmt.Sprintf("%s %s %d×%d×%d", kind.prec, s.trans, s.m, s.n, s.k)) {
				continue
			}
			for threads := 1; threads <= 2; threads++ {
				r := row{request: request{[3]int{s.m, s.n, s.k}, s.trans, threads, kind.prec, seconds}}
				if r, err = r.fill(theirs, rounds); err != nil {
					return err
				}
				rows = append(rows, r)
				fmt.Fprintf(os.Stderr, "%s %s %4d×%4d×%4d, %d threads: ours %6.1f, peer %6.1f, ratio %.2f; fastest %6.1f, ratio %.2f, peak %s\n",
					kind.prec, s.trans, s.m, s.n, s.k, threads, r.Ours, r.Peer, r.Ratio, r.Fast, r.Best, r.share())
			}
		}
	}
	if err := theirs.Close(); err != nil {
		return err
	}
	if len(rows) == 0 {
		return nil // none of these was asked for
	}
	text, err := results.Write(out, "gemm", rows, row.key, table)
	if err != nil {
		return err
	}
	fmt.Print(text)
	return nil
}

func (r row) key() string { return fmt.Sprint(r.Shape, r.Trans, r.Threads, r.Prec) }

// table is the Markdown of all rows.
func table(m results.Machine, rows []row) string {
	var b strings.Builder
	fmt.Fprintf(&b, "# Matrix products beside PyTorch's\n\n%s\n", m)
	b.WriteString("GFLOPS, medians of alternating runs, and of the fastest ones the ratio; the peak is that of\n" +
		"multiply-adds alone, in registers, of the row's precision (bfloat16: VDPBF16PS).\n\n")
	for _, kind := range kinds {
		if slices.ContainsFunc(rows, func(r row) bool { return r.Prec == kind.prec }) {
			fmt.Fprintf(&b, "- %s: %s\n", kind.prec, kind.note)
		}
	}
	b.WriteByte('\n')
	b.WriteString("| precision | A, B | m×n×k | threads | ours | theirs | ratio | fastest | peak |\n| --- | --- | --- | --- | --- | --- | --- | --- | --- |\n")
	for _, r := range rows {
		fmt.Fprintf(&b, "| %s | %s | %d×%d×%d | %d | %.0f | %.0f | %.2f | %.2f | %s |\n",
			r.Prec, r.Trans, r.Shape[0], r.Shape[1], r.Shape[2], r.Threads, r.Ours, r.Peer, r.Ratio, r.Best, r.peak())
	}
	return b.String()
}

// peak is the row's peak for people, and share how much of it ours reached.
func (r row) peak() string {
	if r.Peak == 0 {
		return "–"
	}
	return fmt.Sprintf("%.0f", r.Peak)
}

func (r row) share() string {
	if r.Peak == 0 {
		return r.peak()
	}
	return fmt.Sprintf("%s (%.0f %%)", r.peak(), 100*r.Fast/r.Peak)
}

// fill measures ours and the peer's in turn.
func (r row) fill(theirs *peer.Process, rounds int) (row, error) {
	var ours, peers, ratios, peaks, fast, peerFast []float64
	for range rounds {
		time.Sleep(results.Settle)
		a := measure(r.request)
		if a.Error != "" {
			return r, fmt.Errorf("%s", a.Error)
		}
		b, err := peer.Ask[answer](theirs, r.request)
		if err != nil {
			return r, err
		}
		ours, peers, ratios = append(ours, a.GFLOPS), append(peers, b.GFLOPS), append(ratios, a.GFLOPS/b.GFLOPS)
		fast, peerFast = append(fast, a.Best), append(peerFast, b.Best)
		time.Sleep(results.Settle)
		prec, _, _ := precision(r.Prec) // measure knew it
		peaks = append(peaks, fma.Peak(prec, r.Threads))
	}
	r.Ours, r.Peer, r.Ratio, r.Peak = results.Median(ours), results.Median(peers), results.Median(ratios), slices.Max(peaks)
	r.Fast, r.Best = slices.Max(fast), slices.Max(fast)/slices.Max(peerFast)
	return r, nil
}
