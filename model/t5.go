package model

import (
	"math"
	"strings"

	"mlpfusion/kernel"
)

// T5 (arXiv 1910.10683), v1.0 with ReLU and v1.1 gated.
func init() {
	register("t5", &family{
		architectures: heads("T5ForSequenceClassification", "T5ForConditionalGeneration"),
		prefix:        "transformer.",
		head:          LanguageModel,
		widthKey:      "d_ff",
		unused:        t5Unused,
		buffers:       t5Buffers,
		aliases:       t5Aliases,
		arch: func(r *reader) *Arch {
			k := struct {
				FeedForward  string `json:"feed_forward_proj"`
				ScaleDecoder *bool  `json:"scale_decoder_outputs"`
			}{FeedForward: "relu"}
			r.decode(&k)
			a, s := t5Arch(r)
			s.prefix, s.mlp = "transformer.", "DenseReluDense"
			act, gated := strings.CutPrefix(k.FeedForward, "gated-")
			if gated && act == "gelu" {
				act = "gelu_new"
			}
			a.Act, a.Gated = r.act("feed_forward_proj", act), gated
			if k.ScaleDecoder != nil {
				a.LogitScale = 1
				if *k.ScaleDecoder {
					a.LogitScale = t5LogitScale(a)
				}
			}
			return a
		},
	})
}

// t5Unused are other heads, t5Buffers copies of the shared embeddings that older files
// hold and a bias that nothing reads.
var (
	t5Unused  = []string{"lm_head.weight", "classification_head.", "qa_outputs."}
	t5Buffers = []string{"encoder.embed_tokens.weight", "decoder.embed_tokens.weight", "layer.1.EncDecAttention.relative_attention_bias.weight"}
	t5Aliases = map[string]string{"hidden_size": "d_model", "num_attention_heads": "num_heads", "num_hidden_layers": "num_layers"}
)

type t5Keys struct {
	DModel            int     `json:"d_model"`
	DKV               int     `json:"d_kv"`
	DFF               int     `json:"d_ff"`
	Layers            int     `json:"num_layers"`
	DecoderLayers     *int    `json:"num_decoder_layers"`
	Heads             int     `json:"num_heads"`
	VocabSize         int     `json:"vocab_size"`
	Buckets           int     `json:"relative_attention_num_buckets"`
	MaxDistance       int     `json:"relative_attention_max_distance"`
	PadTokenID        int     `json:"pad_token_id"`
	StartTokenID      *int    `json:"decoder_start_token_id"`
	LayerNormEpsilon  float32 `json:"layer_norm_epsilon"`
	InitializerFactor float64 `json:"initializer_factor"`
	Dropout           float32 `json:"dropout_rate"`
	ClassifierDropout float32 `json:"classifier_dropout"`
	Tied              bool    `json:"tie_word_embeddings"`
	IsDecoder         bool    `json:"is_decoder"`
}

// t5Arch reads what T5 and Switch Transformers name alike.
func t5Arch(r *reader) (*Arch, *seq2seq) {
	k := t5Keys{DKV: 64, Buckets: 32, MaxDistance: 128, LayerNormEpsilon: 1e-6, InitializerFactor: 1, Dropout: 0.1, Tied: true}
	r.decode(&k)
	a := &Arch{
		Hidden: r.size("d_model", k.DModel), Layers: r.layers("num_layers", k.Layers), DecoderLayers: k.Layers,
		Intermediate: r.size("d_ff", k.DFF), Vocab: r.size("vocab_size", k.VocabSize), Positions: 1 << 16, // relative: any length will do
		PadID: k.PadTokenID, StartID: k.PadTokenID, EndIDs: r.ids("eos_token_id", 1), Norm: RMSNorm, Eps: k.LayerNormEpsilon,
		Dropout:    Dropout{EmbedDrop: k.Dropout, HiddenDrop: k.Dropout, AttnDrop: k.Dropout, HeadDrop: k.ClassifierDropout},
		classifier: classifier{dropFirst: true, dense: "classification_head.dense", act: kernel.Tanh, out: "classification_head.out_proj", outBias: true, lastToken: true},
		names:      names{head: "lm_head"},
	}
	if k.DecoderLayers != nil {
		a.DecoderLayers = r.layers("num_decoder_layers", *k.DecoderLayers)
	}
	if k.StartTokenID != nil {
		a.StartID = *k.StartTokenID
	}
	a.InitStd = float32(k.InitializerFactor / math.Sqrt(float64(max(1, a.Hidden))))
	if k.Tied {
		a.LogitScale = t5LogitScale(a)
	}
	a.Attention = layers(a.Layers, Attention{Heads: r.size("num_heads", k.Heads), Dim: r.size("d_kv", k.DKV), Scale: 1})
	s := &seq2seq{mlp: "DenseReluDense", buckets: r.within("relative_attention_num_buckets", k.Buckets, 4, 1<<20)}
	s.maxDistance = r.within("relative_attention_max_distance", k.MaxDistance, s.buckets/2+1, 1<<20)
	a.seq2seq = s
	for _, id := range []struct {
		key string
		n   int
	}{{"eos_token_id", a.EndID()}, {"decoder_start_token_id", a.StartID}, {"pad_token_id", a.PadID}} {
		if id.n < 0 || id.n >= a.Vocab {
			r.fail("%s: expected an id below vocab_size %d, found %d", id.key, a.Vocab, id.n)
		}
	}
	if k.IsDecoder {
		r.fail("is_decoder: expected false, found true")
	}
	return a, s
}

// t5LogitScale multiplies the logits of a head that is tied to the embeddings.
func t5LogitScale(a *Arch) float32 { return float32(1 / math.Sqrt(float64(a.Hidden))) }
