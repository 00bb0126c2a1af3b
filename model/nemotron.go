package model

// Nemotron-NAS (arXiv 2411.19146), whose class is called DeciLM: Llama whose layers have
// MLPs of different widths and keys and values of different numbers of heads.
func init() {
	f := decoderFamily("DeciLM", nemotronArch).withoutLabels()
	f.widthKey, f.config = "block_configs", "DeciLMConfig"
	register(NemotronNAS, f)
}

// NemotronNAS is the model_type of Llamas with a width for each layer.
const NemotronNAS = "nemotron-nas"

// nemotronBlock is what block_configs says of a layer.
type nemotronBlock struct {
	Attention struct {
		HeadsInGroup *int `json:"n_heads_in_group"` // heads of queries that share keys and values
		nemotronPart
		Window *int `json:"window_length"`
	} `json:"attention"`
	FFN struct {
		Mult  *float64 `json:"ffn_mult"`
		Width *int     `json:"intermediate_size"` // read where there is no ffn_mult
		nemotronPart
	} `json:"ffn"`
}

// nemotronPart is what a search for architectures may have left of a sublayer.
type nemotronPart struct {
	NoOp   bool `json:"no_op"`
	Linear bool `json:"replace_with_linear"`
}

// NemotronMultiple is what the widths of MLPs are rounded up to a multiple of.
const NemotronMultiple = 256

// nemotronWidth is the width that ffn_mult stands for, computed as DeciLM's code does.
func nemotronWidth(mult float64, hidden int) int {
	width := int(2 * mult * float64(hidden) / 3)
	return (width + NemotronMultiple - 1) / NemotronMultiple * NemotronMultiple
}

func nemotronArch(r *reader) *Arch {
	k := struct {
		decoderKeys
		AttentionBias bool            `json:"attention_bias"`
		MLPBias       bool            `json:"mlp_bias"`
		Blocks        []nemotronBlock `json:"block_configs"`
	}{decoderKeys: decoderKeys{HiddenAct: "silu", MaxPositions: 2048, NormEps: 1e-6, InitializerRange: 0.02}}
	r.decode(&k)
	k.IntermediateSize, k.KVHeads = 1, nil // block_configs says them
	a := decoderArch(r, &k.decoderKeys, 2)
	a.Multiple = NemotronMultiple
	if len(k.Blocks) != a.Layers {
		r.fail("block_configs: expected an entry for each of %d layers, found %d", a.Layers, len(k.Blocks))
	}
	if r.err != nil {
		return a
	}
	// What reads these models elsewhere looks at none of the three.
	if k.HiddenAct != "silu" {
		r.fail("hidden_act: expected silu, found %q", k.HiddenAct)
	}
	if dim := r.headDim("hidden_size", a.Hidden, "num_attention_heads", k.Heads); a.Attention[0].Dim != dim {
		r.fail("head_dim: expected hidden_size over num_attention_heads, %d, found %d", dim, a.Attention[0].Dim)
	}
	a.setRope(r, 10000, "default", "llama3")
	a.MLPBias = k.MLPBias
	a.setBias(k.AttentionBias)
	a.Intermediate = 0
	for i, b := range k.Blocks {
		if n := b.Attention; n.NoOp || n.Linear || n.Window != nil || n.HeadsInGroup == nil || *n.HeadsInGroup < 1 || k.Heads%*n.HeadsInGroup != 0 {
			r.fail("block_configs: %d: attention: expected n_heads_in_group that divides num_attention_heads, %d, and no no_op, replace_with_linear or window_length, found others", i, k.Heads)
			return a
		}
		a.Attention[i].KVHeads = k.Heads / *b.Attention.HeadsInGroup
		width := 0
		switch f := b.FFN; {
		case f.NoOp || f.Linear:
		case f.Mult != nil && *f.Mult > 0 && *f.Mult < mostUnits:
			width = nemotronWidth(*f.Mult, a.Hidden)
		case f.Mult == nil && f.Width != nil:
			width = *f.Width
		}
		if width < 1 || width > mostUnits {
			r.fail("block_configs: %d: ffn: expected ffn_mult or intermediate_size of an MLP, and no no_op or replace_with_linear, found others", i)
			return a
		}
		a.Widths = append(a.Widths, width)
		a.Intermediate = max(a.Intermediate, width)
	}
	return a
}
