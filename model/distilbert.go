package model

import "mlpfusion/kernel"

// DistilBERT (arXiv 1910.01108) is BERT without token types.
func init() {
	register("distilbert", &family{
		prefix:        "distilbert.",
		architectures: heads("DistilBertForSequenceClassification", ""),
		head:          Classification,
		widthKey:      "hidden_dim",
		unused:        []string{"vocab_transform.", "vocab_layer_norm.", "vocab_projector.", "qa_outputs."},
		buffers:       []string{"embeddings.position_ids"},
		aliases:       map[string]string{"hidden_size": "dim", "num_attention_heads": "n_heads", "num_hidden_layers": "n_layers"},
		arch:          distilbertArch,
	})
}

type distilbertKeys struct {
	Dim              int     `json:"dim"`
	Layers           int     `json:"n_layers"`
	Heads            int     `json:"n_heads"`
	HiddenDim        int     `json:"hidden_dim"`
	Activation       string  `json:"activation"`
	VocabSize        int     `json:"vocab_size"`
	MaxPositions     int     `json:"max_position_embeddings"`
	PadTokenID       int     `json:"pad_token_id"`
	InitializerRange float32 `json:"initializer_range"`
	Dropout          float32 `json:"dropout"`
	AttentionDropout float32 `json:"attention_dropout"`
	HeadDropout      float32 `json:"seq_classif_dropout"`
}

func distilbertArch(r *reader) *Arch {
	k := distilbertKeys{Activation: "gelu", MaxPositions: 512, InitializerRange: 0.02, Dropout: 0.1, AttentionDropout: 0.1, HeadDropout: 0.2}
	r.decode(&k)
	a := &Arch{
		Hidden: r.size("dim", k.Dim), Layers: r.layers("n_layers", k.Layers),
		Intermediate: r.size("hidden_dim", k.HiddenDim), Act: r.act("activation", k.Activation), MLPBias: true,
		Vocab: r.size("vocab_size", k.VocabSize), Positions: r.size("max_position_embeddings", k.MaxPositions),
		PadID: k.PadTokenID, Eps: 1e-12, InitStd: k.InitializerRange,
		Dropout:    Dropout{EmbedDrop: k.Dropout, HiddenDrop: k.Dropout, AttnDrop: k.AttentionDropout, HeadDrop: k.HeadDropout},
		classifier: classifier{dense: "pre_classifier", act: kernel.ReLU, out: "classifier", outBias: true},
		names: names{
			words: "distilbert.embeddings.word_embeddings", positions: "distilbert.embeddings.position_embeddings", embedNorm: "distilbert.embeddings.LayerNorm",
			layer: "distilbert.transformer.layer.%d", block: "ffn",
			qkv: []string{"attention.q_lin", "attention.k_lin", "attention.v_lin"}, out: "attention.out_lin",
			attnNorms: norms{sum: "sa_layer_norm"},
			up:        "ffn.lin1", down: "ffn.lin2",
			mlpNorms: norms{sum: "output_layer_norm"},
		},
	}
	a.Attention = layers(a.Layers, Attention{Heads: k.Heads, Dim: r.headDim("dim", a.Hidden, "n_heads", k.Heads), Bias: true, OutBias: true})
	return a
}
