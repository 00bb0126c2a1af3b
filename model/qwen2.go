package model

// Qwen 2 (arXiv 2407.10671), and Qwen 2.5: Llama with biases of queries, keys and
// values.
func init() {
	register("qwen2", decoderFamily("Qwen2", func(r *reader) *Arch {
		k := qwenKeys{decoderKeys: decoderKeys{KVHeads: ptr(32)}}
		a := qwenArch(r, &k)
		for i := range a.Attention {
			a.Attention[i].Bias = true
		}
		return a
	}))
}

type qwenKeys struct {
	decoderKeys
	AttentionBias bool     `json:"attention_bias"` // read by Qwen 3
	UseWindow     bool     `json:"use_sliding_window"`
	Window        *int     `json:"sliding_window"`
	WindowsFrom   int      `json:"max_window_layers"`
	LayerTypes    []string `json:"layer_types"`
}

// qwenArch reads what Qwen 2 and 3 name alike.
func qwenArch(r *reader, k *qwenKeys) *Arch {
	k.defaults()
	r.decode(k)
	a := decoderArch(r, &k.decoderKeys)
	a.setRope(r, 10000)
	if k.UseWindow {
		a.setWindows(r, k.LayerTypes, k.Window, func(i int) bool { return i >= k.WindowsFrom })
	}
	return a
}

// defaults sets the values of keys that config.json may leave out.
func (k *qwenKeys) defaults() {
	k.HiddenAct, k.MaxPositions, k.NormEps, k.InitializerRange = "silu", 32768, 1e-6, 0.02
	k.Window, k.WindowsFrom = ptr(4096), 28
}
