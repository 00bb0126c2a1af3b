package main

import (
	"fmt"
	"os"
	"regexp"
	"slices"
	"strings"
	"time"

	"mlpfusion/bench/internal/peer"
	"mlpfusion/bench/internal/results"
)

// shapes are the products of fine-tuning MiniLM (384, 1536) and BERT-base (768,
// 3072): a linear layer is "nt", its input's gradient "nn", its weight's "tn".
// 425 tokens are a batch of 32 sentences of SST-2, 4096 one of 32×128.
var shapes = []struct {
	m, n, k int
	trans   string
}{
	{425, 384, 384, "nt"},
	{425, 1536, 384, "nt"},
	{425, 384, 1536, "nt"},
	{425, 384, 1536, "nn"},
	{425, 1536, 384, "nn"},
	{384, 1536, 425, "tn"},
	{1536, 384, 425, "tn"},
	{425, 768, 768, "nt"},
	{425, 3072, 768, "nt"},
	{425, 768, 3072, "nt"},
	{425, 768, 3072, "nn"},
	{768, 3072, 425, "tn"},
	{25, 768, 3072, "nt"},
	{25, 3072, 768, "nt"},
	{25, 768, 3072, "nn"},
	{4096, 768, 3072, "nt"},
	{4096, 3072, 768, "nt"},
	{768, 3072, 4096, "tn"},
}

// row is one line of a comparison, medians over its rounds.
type row struct {
	request
	Ours  float64 `json:"ours"`  // GFLOPS
	Peer  float64 `json:"peer"`  // GFLOPS
	Ratio float64 `json:"ratio"` // median of the rounds' ours/peer
	Best  float64 `json:"best"`  // the same of the fastest runs, for a machine that others use
	Fast  float64 `json:"fast"`  // ours, fastest run, GFLOPS
	Peak  float64 `json:"peak"`  // GFLOPS of multiply-adds alone, same threads
}

// compare alternates with the peer, prints a table and keeps it in the folder out.
func compare(command string, rounds int, seconds float64, out string, packed, bf16 bool, only string) error {
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
	precs := []string{"fp32"}
	if bf16 {
		precs = append(precs, "bf16")
	}
	for _, prec := range precs {
		for _, s := range shapes {
			if !chosen.MatchString(fmt.Sprintf("%s %s %d×%d×%d", prec, s.trans, s.m, s.n, s.k)) {
				continue
			}
			for threads := 1; threads <= 2; threads++ {
				r := row{request: request{[3]int{s.m, s.n, s.k}, s.trans, threads, prec, seconds}}
				if r, err = r.fill(theirs, rounds, packed); err != nil {
					return err
				}
				rows = append(rows, r)
				fmt.Fprintf(os.Stderr, "%s %s %4d×%4d×%4d, %d threads: ours %6.1f, peer %6.1f, ratio %.2f; fastest %6.1f, ratio %.2f, peak %6.1f (%.0f %%)\n",
					prec, s.trans, s.m, s.n, s.k, threads, r.Ours, r.Peer, r.Ratio, r.Fast, r.Best, r.Peak, 100*r.Fast/r.Peak)
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
		"float32 multiply-adds alone. PyTorch multiplies float32 with MKL, bfloat16 with oneDNN and then\n" +
		"has its operands in bfloat16 before the clock starts, where ours are float32 and rounded on the way.\n\n")
	b.WriteString("| precision | A, B | m×n×k | threads | ours | theirs | ratio | fastest | peak |\n| --- | --- | --- | --- | --- | --- | --- | --- | --- |\n")
	for _, r := range rows {
		fmt.Fprintf(&b, "| %s | %s | %d×%d×%d | %d | %.0f | %.0f | %.2f | %.2f | %.0f |\n",
			r.Prec, r.Trans, r.Shape[0], r.Shape[1], r.Shape[2], r.Threads, r.Ours, r.Peer, r.Ratio, r.Best, r.Peak)
	}
	return b.String()
}

// fill measures ours and the peer's in turn.
func (r row) fill(theirs *peer.Process, rounds int, packed bool) (row, error) {
	var ours, peers, ratios, peaks, fast, peerFast []float64
	for range rounds {
		time.Sleep(results.Settle)
		a := measure(r.request, packed)
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
		peaks = append(peaks, measure(request{Prec: "peak", Threads: r.Threads, Seconds: 0.05}, false).Best)
	}
	r.Ours, r.Peer, r.Ratio, r.Peak = results.Median(ours), results.Median(peers), results.Median(ratios), slices.Max(peaks)
	r.Fast, r.Best = slices.Max(fast), slices.Max(fast)/slices.Max(peerFast)
	return r, nil
}
