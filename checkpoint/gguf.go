package checkpoint

import (
	"fmt"
	"io"
	"math"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"mlpfusion/internal/gguf"
)

// ggufTokenizer is the file that carries the tokenizer of a GGUF file along: its
// metadata as they were, with no tensors behind them.
const ggufTokenizer = "tokenizer.gguf"

// isGGUF tells a GGUF file by its name.
func isGGUF(path string) bool { return strings.EqualFold(filepath.Ext(path), ".gguf") }

// openGGUF opens a GGUF file as the model directory that it was converted from:
// config.json made of its metadata, tensors under transformers' names. What is
// quantized is F32 here, and read from the file block by block.
func openGGUF(path string) (*Dir, error) {
	r := newReader()
	fail := func(err error) (*Dir, error) {
		_ = r.Close() // the first error says it
		return nil, err
	}
	w, err := openWeights(path)
	if err != nil {
		return nil, err
	}
	r.files = []*weightFile{w}
	file, err := gguf.Parse(w, w.size)
	if err != nil {
		return fail(fmt.Errorf("%s: %w", path, err))
	}
	m, err := readGGUF(file)
	if err != nil {
		return fail(fmt.Errorf("%s: %w", path, err))
	}
	for _, t := range file.Tensors {
		if t.Name == ropeFactors {
			continue // in the configuration
		}
		tensor, err := m.tensor(w, t)
		if err == nil && r.tensors[tensor.Name] != nil {
			err = fmt.Errorf("tensor %q: expected one for %s, found two", t.Name, tensor.Name)
		}
		if err != nil {
			return fail(fmt.Errorf("%s: %w", path, err))
		}
		tensor.File = path
		r.tensors[tensor.Name] = tensor
		r.names = append(r.names, tensor.Name)
	}
	slices.Sort(r.names)
	config, err := m.config(w, r)
	if err != nil {
		return fail(fmt.Errorf("%s: %w", path, err))
	}
	return &Dir{Path: path, Config: &Config{path, config}, Weights: r, Carry: []string{ggufTokenizer}}, nil
}

// carryGGUF writes a GGUF file's tokenizer to a file.
func carryGGUF(from, to string) error {
	w, err := openWeights(from)
	if err != nil {
		return err
	}
	defer func() { _ = w.Close() }() // only read
	file, err := gguf.Parse(w, w.size)
	if err != nil {
		return fmt.Errorf("%s: %w", from, err)
	}
	out, err := CreateAtomic(to)
	if err != nil {
		return err
	}
	defer out.Abort()
	if _, err := io.Copy(out, file.Header(w)); err != nil {
		return err
	}
	return out.Commit()
}

// ggufModel is the model that a GGUF file describes.
type ggufModel struct {
	file    *gguf.File
	arch    string // general.architecture, with which the keys begin
	family  ggufFamily
	heads   int // of queries
	kvHeads int
	headDim int
	err     error // the first thing wrong with a key
}

// ggufFamily is what a general.architecture is in transformers.
type ggufFamily struct {
	kind, class string
	names       map[string]string // of a layer's tensors, where they are not ggufNames
	interleaved bool              // the two halves of each head of queries and keys alternate
	onePlus     bool              // norms are kept as 1 + weight
	more        func(m *ggufModel, c *ggufConfig)
}

// ggufNames are the names of a layer's tensors.
var ggufNames = map[string]string{
	"attn_q": "self_attn.q_proj", "attn_k": "self_attn.k_proj", "attn_v": "self_attn.v_proj", "attn_output": "self_attn.o_proj",
	"attn_q_norm": "self_attn.q_norm", "attn_k_norm": "self_attn.k_norm",
	"ffn_gate": "mlp.gate_proj", "ffn_up": "mlp.up_proj", "ffn_down": "mlp.down_proj",
	"attn_norm": "input_layernorm", "ffn_norm": "post_attention_layernorm",
}

var (
	gemmaNames = map[string]string{"post_attention_norm": "post_attention_layernorm", "ffn_norm": "pre_feedforward_layernorm", "post_ffw_norm": "post_feedforward_layernorm"}
	phi3Names  = map[string]string{"attn_qkv": "self_attn.qkv_proj", "ffn_up": "mlp.gate_up_proj"}
)

var ggufFamilies = map[string]ggufFamily{
	"llama": {kind: "llama", class: "Llama", interleaved: true, more: func(m *ggufModel, c *ggufConfig) {
		_, bias := m.find("blk.0.attn_q.bias")
		_, mlp := m.find("blk.0.ffn_up.bias")
		c.add("attention_bias", bias)
		c.add("mlp_bias", mlp)
	}},
	"qwen2":  {kind: "qwen2", class: "Qwen2", more: noWindow},
	"qwen3":  {kind: "qwen3", class: "Qwen3", more: noWindow},
	"phi3":   {kind: "phi3", class: "Phi3", names: phi3Names, more: func(m *ggufModel, c *ggufConfig) { m.window(c) }},
	"gemma2": {kind: "gemma2", class: "Gemma2", names: gemmaNames, onePlus: true, more: gemma2Config},
	"gemma3": {kind: "gemma3_text", class: "Gemma3", names: gemmaNames, onePlus: true, more: gemma3Config},
}

func noWindow(m *ggufModel, c *ggufConfig) { c.add("use_sliding_window", false) }

func gemma2Config(m *ggufModel, c *ggufConfig) {
	m.gemma(c, 46) // the 27B
	c.add("attn_logit_softcapping", m.float("attn_logit_softcapping", 50))
	c.add("final_logit_softcapping", m.float("final_logit_softcapping", 30))
}

func gemma3Config(m *ggufModel, c *ggufConfig) {
	m.gemma(c, 62) // the 27B
	types := make([]string, m.int("block_count", 0))
	for i := range types {
		types[i] = "sliding_attention"
		if i%6 == 5 {
			types[i] = "full_attention"
		}
	}
	c.add("layer_types", types)
	c.add("rope_local_base_freq", 10000.0)
}

// gemma adds what Gemma 2 and 3 share. The largest of each, by its layers, scales
// queries by the hidden size's share of a head instead of the head's width.
func (m *ggufModel) gemma(c *ggufConfig, largest int) {
	scalar := m.headDim
	if m.int("block_count", 0) == largest {
		scalar = m.int("embedding_length", 0) / max(1, m.heads)
	}
	c.add("hidden_activation", "gelu_pytorch_tanh")
	c.add("query_pre_attn_scalar", scalar)
	m.window(c)
}

func (m *ggufModel) window(c *ggufConfig) {
	if n := m.int("attention.sliding_window", 0); n > 0 {
		c.add("sliding_window", n)
	} else {
		c.add("sliding_window", nil)
	}
}

func readGGUF(file *gguf.File) (*ggufModel, error) {
	m := &ggufModel{file: file}
	var ok bool
	var err error
	if m.arch, ok, err = gguf.Get[string](file, "general.architecture"); err != nil || !ok {
		return nil, fmt.Errorf("general.architecture: expected the name of an architecture, found none")
	}
	if m.family, ok = ggufFamilies[m.arch]; !ok {
		return nil, fmt.Errorf("general.architecture: expected gemma2, gemma3, llama, phi3, qwen2 or qwen3, found %q", m.arch)
	}
	m.heads = m.int("attention.head_count", 0)
	m.kvHeads = m.int("attention.head_count_kv", m.heads)
	m.headDim = m.int("attention.key_length", m.int("embedding_length", 0)/max(1, m.heads))
	for key, n := range map[string]int{"attention.head_count": m.heads, "attention.head_count_kv": m.kvHeads, "embedding_length": m.int("embedding_length", 0), "block_count": m.int("block_count", 0)} {
		if m.err == nil && (n < 1 || n > 1<<24) {
			m.err = fmt.Errorf("%s.%s: expected a number of at least 1, found %d", m.arch, key, n)
		}
	}
	if n := m.int("expert_count", 0); m.err == nil && n > 0 {
		m.err = fmt.Errorf("%s.expert_count: expected no experts, found %d", m.arch, n)
	}
	if v := m.int("attention.value_length", m.headDim); m.err == nil && v != m.headDim {
		m.err = fmt.Errorf("%s.attention.value_length: expected %d as of keys, found %d", m.arch, m.headDim, v)
	}
	return m, m.err
}

// int and float return an architecture's key, or what it is where it is not there.
func (m *ggufModel) int(key string, otherwise int) int {
	v, ok, err := gguf.Get[int64](m.file, m.arch+"."+key)
	if !ok {
		v = int64(otherwise)
	}
	m.note(err)
	return int(v)
}

func (m *ggufModel) float(key string, otherwise float64) float64 {
	v, ok, err := gguf.Get[float64](m.file, m.arch+"."+key)
	if !ok {
		v = otherwise
	}
	m.note(err)
	return shortest(v)
}

func (m *ggufModel) note(err error) {
	if m.err == nil {
		m.err = err
	}
}

// shortest is a number that was rounded to float32, as people write it.
func shortest(v float64) float64 {
	if float64(float32(v)) != v {
		return v
	}
	short, _ := strconv.ParseFloat(strconv.FormatFloat(v, 'g', 6, 64), 64)
	if float32(short) != float32(v) {
		return v
	}
	return short
}

func (m *ggufModel) find(name string) (gguf.Tensor, bool) {
	i := slices.IndexFunc(m.file.Tensors, func(t gguf.Tensor) bool { return t.Name == name })
	if i < 0 {
		return gguf.Tensor{}, false
	}
	return m.file.Tensors[i], true
}

// tensor is a tensor of the file as transformers has it.
func (m *ggufModel) tensor(w *weightFile, t gguf.Tensor) (*Tensor, error) {
	name, kind, ok := m.name(t.Name)
	if !ok {
		return nil, fmt.Errorf("tensor %q: expected no such tensor in a %s model", t.Name, m.arch)
	}
	s := &ggufValues{file: w, tensor: t, row: t.Elements() / t.Shape[0], dtype: F32}
	switch t.Type.Name {
	case "F16":
		s.dtype = F16
	case "BF16":
		s.dtype = BF16
	}
	if m.family.interleaved && (kind == "attn_q" || kind == "attn_k") {
		heads := m.heads
		if kind == "attn_k" {
			heads = m.kvHeads
		}
		if t.Shape[0]%(2*heads) != 0 || s.row%t.Type.Block != 0 {
			return nil, fmt.Errorf("tensor %q: expected two halves of rows for each of %d heads, found shape %v", t.Name, heads, t.Shape)
		}
		s.half = t.Shape[0] / heads / 2
	}
	if m.family.onePlus && strings.HasSuffix(t.Name, "norm.weight") {
		s.minus = 1
	}
	n := t.Elements() * s.dtype.Size()
	return &Tensor{Name: name, DType: s.dtype, Shape: t.Shape, data: s, bytes: n}, nil
}

// name returns transformers' name for a tensor, and what it is in its layer.
func (m *ggufModel) name(name string) (full, kind string, ok bool) {
	stem, end, _ := strings.Cut(name, ".")
	if stem != "blk" {
		top := map[string]string{"token_embd": "model.embed_tokens", "output_norm": "model.norm", "output": "lm_head"}[stem]
		return top + "." + end, "", top != "" && (end == "weight" || end == "bias")
	}
	parts := strings.Split(end, ".")
	if len(parts) != 3 || parts[2] != "weight" && parts[2] != "bias" {
		return "", "", false
	}
	if layer, err := strconv.Atoi(parts[0]); err != nil || strconv.Itoa(layer) != parts[0] {
		return "", "", false
	}
	to, ok := m.family.names[parts[1]]
	if !ok {
		to, ok = ggufNames[parts[1]]
	}
	return "model.layers." + parts[0] + "." + to + "." + parts[2], parts[1], ok
}

// ggufConfig is the config.json that is made.
type ggufConfig struct {
	fields []field
	err    error
}

func (c *ggufConfig) add(key string, v any) {
	raw, err := encodeJSON(v)
	if c.err == nil && err != nil { // infinity and NaN
		c.err = fmt.Errorf("%s: expected a finite number, found %v", key, v)
	}
	c.fields = append(c.fields, field{key, raw})
}

// config makes the config.json. A head of its own goes where it is the embeddings a
// second time, at another precision, and these are then what is finer.
func (m *ggufModel) config(w *weightFile, r *Reader) ([]field, error) {
	words := r.tensors["model.embed_tokens.weight"]
	if words == nil {
		return nil, fmt.Errorf("expected the tensor %q, found none", "token_embd.weight")
	}
	tied := true
	if head := r.tensors["lm_head.weight"]; head != nil {
		var err error
		if tied, err = sameMatrix(words, head); err != nil {
			return nil, err
		}
		if tied {
			r.tensors[words.Name] = &Tensor{Name: words.Name, DType: head.DType, Shape: head.Shape, File: head.File, data: head.data, bytes: head.bytes}
			delete(r.tensors, head.Name)
			r.names = slices.DeleteFunc(r.names, func(n string) bool { return n == head.Name })
		}
	}
	c := &ggufConfig{}
	c.add("architectures", []string{m.family.class + "ForCausalLM"})
	c.add("model_type", m.family.kind)
	c.add("vocab_size", words.Shape[0])
	c.add("hidden_size", m.int("embedding_length", 0))
	c.add("intermediate_size", m.int("feed_forward_length", 0))
	c.add("num_hidden_layers", m.int("block_count", 0))
	c.add("num_attention_heads", m.heads)
	c.add("num_key_value_heads", m.kvHeads)
	c.add("head_dim", m.headDim)
	c.add("max_position_embeddings", m.int("context_length", 2048))
	c.add("rms_norm_eps", m.float("attention.layer_norm_rms_epsilon", 1e-6))
	c.add("tie_word_embeddings", tied)
	c.add("initializer_range", 0.02)
	if !m.family.onePlus {
		c.add("hidden_act", "silu")
	}
	m.rope(w, c)
	m.ids(c)
	c.add("torch_dtype", "float32")
	m.family.more(m, c)
	if m.err == nil {
		m.err = c.err
	}
	return c.fields, m.err
}

// ids adds the special tokens' ids.
func (m *ggufModel) ids(c *ggufConfig) {
	id := func(name string) (int64, bool) {
		v, ok, err := gguf.Get[int64](m.file, "tokenizer.ggml."+name+"_token_id")
		m.note(err)
		return v, ok
	}
	if v, ok := id("bos"); ok {
		c.add("bos_token_id", v)
	}
	end, ok := id("eos")
	if turn, also := id("eot"); ok && also && turn != end {
		c.add("eos_token_id", []int64{end, turn})
	} else if ok {
		c.add("eos_token_id", end)
	}
	if v, ok := id("padding"); ok {
		c.add("pad_token_id", v)
	} else {
		c.add("pad_token_id", nil)
	}
}

// ropeFactors is the tensor that stretches the waves of Llama 3.1 and later; other
// names of the kind are longer.
const ropeFactors = "rope_freqs.weight"

// rope adds the keys of rotary positions.
func (m *ggufModel) rope(w *weightFile, c *ggufConfig) {
	theta := m.float("rope.freq_base", 10000)
	c.add("rope_theta", theta)
	if n := m.int("rope.dimension_count", m.headDim); n != m.headDim {
		c.add("partial_rotary_factor", float64(n)/float64(max(1, m.headDim)))
	}
	kind, _, err := gguf.Get[string](m.file, m.arch+".rope.scaling.type")
	m.note(err)
	factor := m.float("rope.scaling.factor", 1)
	original := m.int("rope.scaling.original_context_length", 0)
	t, ok := m.find(ropeFactors)
	switch {
	case ok:
		scaling, err := llama3Scaling(w, t, theta)
		m.note(err)
		c.add("rope_scaling", scaling)
	case kind == "" || kind == "none":
	case kind == "linear":
		c.add("rope_scaling", map[string]any{"rope_type": kind, "factor": factor})
	case kind == "yarn":
		scaling := map[string]any{"rope_type": kind, "factor": factor}
		if original > 0 {
			scaling["original_max_position_embeddings"] = original
		}
		c.add("rope_scaling", scaling)
	default:
		m.note(fmt.Errorf("%s.rope.scaling.type: expected none, linear or yarn, found %q", m.arch, kind))
	}
}

// llama3Scaling finds the settings that the factors were made of: those of Llama 3.1
// and later differ in the largest factor only.
func llama3Scaling(w *weightFile, t gguf.Tensor, theta float64) (map[string]any, error) {
	factors := make([]float32, t.Elements())
	s := &ggufValues{file: w, tensor: t, row: len(factors), dtype: F32}
	if err := s.values(factors, 0); err != nil {
		return nil, err
	}
	const low, high, original = 1.0, 4.0, 8192.0
	factor := float64(slices.Max(factors))
	for i, v := range factors {
		turns := original * math.Pow(theta, -float64(i)/float64(len(factors))) / (2 * math.Pi)
		want := 1.0
		switch smooth := (turns - low) / (high - low); {
		case smooth <= 0:
			want = factor
		case smooth < 1:
			want = 1 / ((1-smooth)/factor + smooth)
		}
		if !(math.Abs(float64(v)-want) <= 1e-3*want) {
			return nil, fmt.Errorf("tensor %q: expected the factors of Llama 3 with low_freq_factor 1, high_freq_factor 4 and 8192 positions, found %g in place of %g", t.Name, v, want)
		}
	}
	return map[string]any{"rope_type": "llama3", "factor": factor, "low_freq_factor": low, "high_freq_factor": high, "original_max_position_embeddings": int(original)}, nil
}

// sameMatrix tells whether two matrices are one, up to the precision at which each
// is stored, by their first rows: they are then nearer to each other than a tenth of
// their size, where embeddings and a head that was trained apart are not.
func sameMatrix(a, b *Tensor) (bool, error) {
	if !slices.Equal(a.Shape, b.Shape) || len(a.Shape) != 2 {
		return false, nil
	}
	rows := min(a.Shape[0], 1024)
	x, y := make([]float32, rows*a.Shape[1]), make([]float32, rows*a.Shape[1])
	if err := a.Rows(0, rows).ReadFloat32(x); err != nil {
		return false, err
	}
	if err := b.Rows(0, rows).ReadFloat32(y); err != nil {
		return false, err
	}
	var apart, size float64
	for i := range x {
		d := float64(x[i]) - float64(y[i])
		apart += d * d
		size += float64(y[i]) * float64(y[i])
	}
	return apart <= 0.1*0.1*size, nil
}

// ggufValues reads a tensor of a GGUF file as the bytes of dtype.
type ggufValues struct {
	file   *weightFile
	tensor gguf.Tensor
	dtype  DType
	row    int     // elements of a row
	half   int     // rows of half a head, where the two halves alternate; 0: they do not
	minus  float32 // what the file has added to each value
}

// ReadAt implements io.ReaderAt.
func (s *ggufValues) ReadAt(p []byte, at int64) (int, error) {
	size := int64(s.dtype.Size())
	from, to := at/size, (at+int64(len(p))+size-1)/size
	values := make([]float32, to-from)
	if err := s.values(values, int(from)); err != nil {
		return 0, err
	}
	raw := make([]byte, (to-from)*size)
	encodeFloat32(raw, values, s.dtype) // which the values come from: none is too large
	return copy(p, raw[at-from*size:]), nil
}

// values reads values from an element on, in transformers' order.
func (s *ggufValues) values(dst []float32, from int) error {
	if s.half == 0 {
		return s.stored(dst, from)
	}
	for len(dst) > 0 {
		row, at := from/s.row, from%s.row
		head, in := row/(2*s.half), row%(2*s.half)
		row = head*2*s.half + in%s.half*2 + in/s.half
		n := min(len(dst), s.row-at)
		if err := s.stored(dst[:n], row*s.row+at); err != nil {
			return err
		}
		dst, from = dst[n:], from+n
	}
	return nil
}

// stored reads values from an element on, in the file's order.
func (s *ggufValues) stored(dst []float32, from int) error {
	t := s.tensor.Type
	first, last := from/t.Block*t.Block, (from+len(dst)+t.Block-1)/t.Block*t.Block
	raw := make([]byte, t.Bytes(last-first))
	if _, err := s.file.ReadAt(raw, s.tensor.Offset+t.Bytes(first)); err != nil {
		return err
	}
	values := dst
	if last-first != len(dst) {
		values = make([]float32, last-first)
	}
	t.Decode(values, raw)
	if last-first != len(dst) {
		copy(dst, values[from-first:])
	}
	if s.minus != 0 {
		for i := range dst {
			dst[i] -= s.minus
		}
	}
	return nil
}
