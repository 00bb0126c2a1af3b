package model

import "mlpfusion/kernel"

// BERT (arXiv 1810.04805), and MiniLM, which has its layout.
func init() {
	register("bert", &family{
		prefix:        "bert.",
		architectures: heads("BertForSequenceClassification", ""),
		head:          Classification,
		widthKey:      "intermediate_size",
		unused:        []string{"cls.predictions.", "cls.seq_relationship.", "qa_outputs."},
		buffers:       []string{"embeddings.position_ids"},
		arch: func(r *reader) *Arch {
			a := bertArch(r, "bert.")
			a.classifier = classifier{dense: "bert.pooler.dense", act: kernel.Tanh, out: "classifier", outBias: true}
			return a
		},
	})
}

type bertKeys struct {
	HiddenSize        int      `json:"hidden_size"`
	Layers            int      `json:"num_hidden_layers"`
	Heads             int      `json:"num_attention_heads"`
	IntermediateSize  int      `json:"intermediate_size"`
	HiddenAct         string   `json:"hidden_act"`
	VocabSize         int      `json:"vocab_size"`
	MaxPositions      int      `json:"max_position_embeddings"`
	TypeVocabSize     int      `json:"type_vocab_size"`
	PadTokenID        int      `json:"pad_token_id"`
	LayerNormEps      float32  `json:"layer_norm_eps"`
	InitializerRange  float32  `json:"initializer_range"`
	HiddenDropout     float32  `json:"hidden_dropout_prob"`
	AttentionDropout  float32  `json:"attention_probs_dropout_prob"`
	ClassifierDropout *float32 `json:"classifier_dropout"`
	PositionType      string   `json:"position_embedding_type"`
	IsDecoder         bool     `json:"is_decoder"`
}

// bertArch reads what BERT and RoBERTa name alike.
func bertArch(r *reader, prefix string) *Arch {
	k := bertKeys{
		HiddenAct: "gelu", MaxPositions: 512, TypeVocabSize: 2, LayerNormEps: 1e-12, InitializerRange: 0.02,
		HiddenDropout: 0.1, AttentionDropout: 0.1, PositionType: "absolute",
	}
	r.decode(&k)
	a := &Arch{
		Hidden: r.size("hidden_size", k.HiddenSize), Layers: r.layers("num_hidden_layers", k.Layers),
		Intermediate: r.size("intermediate_size", k.IntermediateSize), Act: r.act("hidden_act", k.HiddenAct), MLPBias: true,
		Vocab: r.size("vocab_size", k.VocabSize), Positions: r.size("max_position_embeddings", k.MaxPositions),
		Types: r.size("type_vocab_size", k.TypeVocabSize), PadID: k.PadTokenID, Eps: k.LayerNormEps, InitStd: k.InitializerRange,
		Dropout: Dropout{EmbedDrop: k.HiddenDropout, HiddenDrop: k.HiddenDropout, AttnDrop: k.AttentionDropout, HeadDrop: k.HiddenDropout},
		names:   bertNames(prefix),
	}
	a.Attention = layers(a.Layers, Attention{Heads: k.Heads, Dim: r.headDim("hidden_size", a.Hidden, "num_attention_heads", k.Heads), Bias: true, OutBias: true})
	a.oneType = a.Types == 1
	if k.ClassifierDropout != nil {
		a.HeadDrop = *k.ClassifierDropout
	}
	if k.PositionType != "absolute" {
		r.fail("position_embedding_type: expected \"absolute\", found %q", k.PositionType)
	}
	if k.IsDecoder {
		r.fail("is_decoder: expected false, found true")
	}
	return a
}

func bertNames(prefix string) names {
	e := prefix + "embeddings."
	return names{
		words: e + "word_embeddings", positions: e + "position_embeddings", types: e + "token_type_embeddings", embedNorm: e + "LayerNorm",
		layer: prefix + "encoder.layer.%d",
		qkv:   []string{"attention.self.query", "attention.self.key", "attention.self.value"}, out: "attention.output.dense",
		attnNorms: norms{sum: "attention.output.LayerNorm"},
		up:        "intermediate.dense", down: "output.dense",
		mlpNorms: norms{sum: "output.LayerNorm"},
	}
}
