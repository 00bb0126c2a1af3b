package metric_test

import (
	"fmt"

	"mlpfusion/metric"
)

func Example() {
	segments := []metric.Segment{{
		Hypothesis: "Alan Bean was a test pilot.",
		References: []string{"Alan Bean worked as a test pilot.", "Alan Bean was a test pilot."},
	}, {
		Hypothesis: "He was born in Wheeler.",
		References: []string{"He was born in Wheeler, Texas."},
	}}
	fmt.Printf("BLEU    %.1f\n", metric.BLEU(segments, metric.Tokenize13a, true))
	fmt.Printf("TER     %.1f\n", metric.TER(segments, metric.Lower(metric.Fields)))
	fmt.Printf("chrF++  %.1f\n", metric.CHRF(segments, 2))
	fmt.Printf("METEOR  %.3f\n", metric.METEOR(segments, metric.Fields))
	// Output:
	// BLEU    78.2
	// TER     16.0
	// chrF++  85.6
	// METEOR  0.835
}
