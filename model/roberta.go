package model

import "mlpfusion/kernel"

// RoBERTa (arXiv 1907.11692) is BERT with a head of its own. It counts positions
// from pad_token_id + 1, and all its token types are 0.
func init() {
	register("roberta", &family{
		prefix:        "roberta.",
		architectures: heads("RobertaForSequenceClassification", ""),
		head:          Classification,
		widthKey:      "intermediate_size",
		unused:        []string{"lm_head.", "pooler.dense.", "qa_outputs."},
		buffers:       []string{"embeddings.position_ids"},
		arch: func(r *reader) *Arch {
			a := bertArch(r, "roberta.")
			a.FirstPosition, a.oneType = a.PadID+1, true
			a.classifier = classifier{dropFirst: true, dense: "classifier.dense", act: kernel.Tanh, out: "classifier.out_proj", outBias: true}
			return a
		},
	})
}
