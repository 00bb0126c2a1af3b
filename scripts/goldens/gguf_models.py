"""Writes checkpoint/testdata/gguf: small models as llama.cpp keeps them, NAME.gguf, and as transformers does,
NAME.safetensors; NAME.json is the config.json that is expected of it, in part.

    python scripts/goldens/gguf_models.py [--check]
"""

import json

import numpy as np
from gguf import GGMLQuantizationType as Q, GGUFWriter, dequantize, quantize
from safetensors.numpy import save_file

from common import ROOT, main

HIDDEN, UNITS, HEADS, KV, DIM, VOCAB, LAYERS = 32, 64, 4, 2, 16, 24, 2
LLAMA = {"attn_norm": "input_layernorm", "attn_q": "self_attn.q_proj", "attn_k": "self_attn.k_proj", "attn_v": "self_attn.v_proj", "attn_output": "self_attn.o_proj",
         "ffn_norm": "post_attention_layernorm", "ffn_gate": "mlp.gate_proj", "ffn_up": "mlp.up_proj", "ffn_down": "mlp.down_proj"}
QK = {"attn_q_norm": "self_attn.q_norm", "attn_k_norm": "self_attn.k_norm"}
GEMMA = LLAMA | {"post_attention_norm": "post_attention_layernorm", "ffn_norm": "pre_feedforward_layernorm", "post_ffw_norm": "post_feedforward_layernorm"}
PHI = {k: v for k, v in LLAMA.items() if k[-2:] not in ("_q", "_k", "_v") and k != "ffn_gate"} | {"attn_qkv": "self_attn.qkv_proj", "ffn_up": "mlp.gate_up_proj"}
SHAPES = {"attn_q": (HEADS * DIM, HIDDEN), "attn_k": (KV * DIM, HIDDEN), "attn_v": (KV * DIM, HIDDEN), "attn_output": (HIDDEN, HEADS * DIM), "attn_qkv": ((HEADS + 2 * KV) * DIM, HIDDEN),
          "ffn_gate": (UNITS, HIDDEN), "ffn_up": (UNITS, HIDDEN), "ffn_down": (HIDDEN, UNITS), "attn_q_norm": (DIM,), "attn_k_norm": (DIM,)}


def interleave(w, heads):
    """Rows as llama.cpp orders them: of each head, in turns, one of its first half and one of its second."""
    return np.concatenate([np.stack([h[: len(h) // 2], h[len(h) // 2 :]], 1).reshape(h.shape) for h in np.split(w, heads)])


def model(out, name, arch, layer, kind, keys, expected, biases=(), one_plus=False, head=None):
    rng = np.random.default_rng(len(name))
    w, want = GGUFWriter(f"{out}/{name}.gguf", arch), {}
    for key, v in {"context_length": 128, "embedding_length": HIDDEN, "feed_forward_length": UNITS, "block_count": LAYERS, "attention.head_count": HEADS, "attention.head_count_kv": KV, "attention.key_length": DIM, "attention.value_length": DIM}.items():
        w.add_uint32(f"{arch}.{key}", v)
    w.add_float32(f"{arch}.attention.layer_norm_rms_epsilon", 1e-5)
    for key, v in keys.items():
        key = key if key.startswith("tokenizer") else f"{arch}.{key}"
        {int: w.add_uint32, float: w.add_float32, str: w.add_string, bool: w.add_bool}[type(v)](key, v)

    def add(ours, theirs, shape, quant=Q.F32):
        v = rng.normal(size=shape).astype(np.float32)
        raw = quantize(v, quant)
        v = dequantize(raw, quant).reshape(shape).astype(np.float32)  # in llama.cpp's order
        if one_plus and ours.endswith("norm"):
            want[theirs] = v - 1
        else:
            want[theirs] = v
        w.add_tensor(ours_name(ours, theirs), raw, raw_dtype=quant)

    def ours_name(ours, theirs):
        return ours + (".bias" if theirs.endswith(".bias") else ".weight")

    add("token_embd", "model.embed_tokens.weight", (VOCAB, HIDDEN), kind)
    add("output_norm", "model.norm.weight", (HIDDEN,))
    for i in range(LAYERS):
        for ours, theirs in layer.items():
            shape = (2 * UNITS, HIDDEN) if arch == "phi3" and ours == "ffn_up" else SHAPES.get(ours, (HIDDEN,))
            for end in ["weight", "bias"] if ours in biases else ["weight"]:
                add(f"blk.{i}.{ours}", f"model.layers.{i}.{theirs}.{end}", shape if end == "weight" else shape[:1], kind if len(shape) == 2 and end == "weight" else Q.F32)
    if head == "own":
        add("output", "lm_head.weight", (VOCAB, HIDDEN), kind)
    elif head == "finer":  # the same matrix, less coarse; transformers' model has that one
        v = want["model.embed_tokens.weight"] + rng.normal(size=(VOCAB, HIDDEN)).astype(np.float32) / 100
        want["model.embed_tokens.weight"] = v
        w.add_tensor("output.weight", v)
    if arch == "llama":  # the file's order was drawn: transformers' is another
        for key in want:
            for part, heads in ("q_proj", HEADS), ("k_proj", KV):
                if part in key:
                    order = interleave(np.arange(heads * DIM), heads)
                    v = np.empty_like(want[key])
                    v[order] = want[key]
                    want[key] = v
    if name == "llama-3":
        factors = np.ones(DIM // 2, np.float32)
        for i in range(DIM // 2):
            wave = 2 * np.pi * 500000.0 ** (2 * i / DIM)
            smooth = (8192 / wave - 1) / 3
            factors[i] = 32 if wave > 8192 else 1 if wave < 8192 / 4 else 1 / ((1 - smooth) / 32 + smooth)
        w.add_tensor("rope_freqs.weight", factors)
    w.write_header_to_file()
    w.write_kv_data_to_file()
    w.write_tensors_to_file()
    w.close()
    save_file({k: np.ascontiguousarray(v) for k, v in want.items()}, f"{out}/{name}.safetensors")
    with open(f"{out}/{name}.json", "w") as f:
        json.dump(dict(hidden_size=HIDDEN, intermediate_size=UNITS, num_hidden_layers=LAYERS, num_attention_heads=HEADS, num_key_value_heads=KV, head_dim=DIM, vocab_size=VOCAB, rms_norm_eps=1e-5, max_position_embeddings=128) | expected, f, indent=1, sort_keys=True)


def write(out):
    out.mkdir(parents=True, exist_ok=True)
    ids = {"tokenizer.ggml.bos_token_id": 1, "tokenizer.ggml.eos_token_id": 2}
    model(out, "llama", "llama", LLAMA, Q.Q8_0, ids | {"rope.freq_base": 1e5}, dict(model_type="llama", rope_theta=100000.0, tie_word_embeddings=False, attention_bias=False, bos_token_id=1, eos_token_id=2, hidden_act="silu"), head="own")
    model(out, "llama-3", "llama", LLAMA, Q.F16, ids | {"rope.freq_base": 500000.0, "tokenizer.ggml.eot_token_id": 3}, dict(model_type="llama", eos_token_id=[2, 3], attention_bias=True, tie_word_embeddings=True, rope_scaling=dict(rope_type="llama3", factor=32, low_freq_factor=1, high_freq_factor=4, original_max_position_embeddings=8192)),
          biases=("attn_q", "attn_k", "attn_v", "attn_output"))
    model(out, "qwen2", "qwen2", LLAMA, Q.Q4_0, ids | {"rope.freq_base": 1e6, "rope.scaling.type": "linear", "rope.scaling.factor": 2.0}, dict(model_type="qwen2", tie_word_embeddings=True, rope_scaling=dict(rope_type="linear", factor=2)), biases=("attn_q", "attn_k", "attn_v"), head="finer")
    model(out, "qwen3", "qwen3", LLAMA | QK, Q.Q5_1, ids, dict(model_type="qwen3", architectures=["Qwen3ForCausalLM"]))
    model(out, "phi3", "phi3", PHI, Q.BF16, ids | {"attention.sliding_window": 16}, dict(model_type="phi3", sliding_window=16))
    model(out, "gemma2", "gemma2", GEMMA, Q.Q4_1, ids | {"attention.sliding_window": 16, "attn_logit_softcapping": 50.0, "final_logit_softcapping": 30.0}, dict(model_type="gemma2", attn_logit_softcapping=50, final_logit_softcapping=30, query_pre_attn_scalar=DIM, hidden_activation="gelu_pytorch_tanh", tie_word_embeddings=True), one_plus=True)
    model(out, "gemma3", "gemma3", GEMMA | QK, Q.Q5_0, ids | {"attention.sliding_window": 16, "rope.freq_base": 1e6}, dict(model_type="gemma3_text", rope_theta=1000000.0, sliding_window=16, layer_types=["sliding_attention"] * 2), one_plus=True)


if __name__ == "__main__":
    main(write, ROOT / "checkpoint" / "testdata" / "gguf")
