"""Writes a checkpoint of Qwen3-30B-A3B's layer shape, 128 experts of 768 × 2048 in bfloat16,
for measuring what goes layer by layer from disk:

    python bench/experiments/large_mixture.py TOKENIZER OUT [LAYERS]

TOKENIZER is a folder with a tokenizer of at most 49,152 words, which stand for Qwen's
151,936; 13 layers are 15.9 GB. The weights are random, of the standard deviation 0.02 of
Qwen's own beginning: each tensor is a stretch, from a random place on, of 2²⁸ normal numbers
drawn with seed 1.
"""

import json
import pathlib
import shutil
import sys

import torch
from safetensors.torch import save_file

HIDDEN, EXPERTS, WIDTH, HEADS, KV_HEADS, DIM, WORDS = 2048, 128, 768, 32, 4, 128, 49152
POOL = 1 << 28


def main(tokenizer, out, layers="13"):
    out, layers = pathlib.Path(out), int(layers)
    out.mkdir(parents=True)
    g = torch.Generator().manual_seed(1)
    pool = torch.empty(POOL, dtype=torch.bfloat16).normal_(0, 0.02, generator=g)

    def normal(*shape):
        n = torch.Size(shape).numel()
        start = torch.randint(POOL - n, (1,), generator=g).item()
        return pool[start : start + n].clone().view(shape)

    def ones(n):
        return torch.ones(n, dtype=torch.bfloat16)

    index = {}

    def save(file, tensors):
        save_file(tensors, out / file, metadata={"format": "pt"})
        index.update({name: file for name in tensors})

    save("model-embed.safetensors", {"model.embed_tokens.weight": normal(WORDS, HIDDEN), "model.norm.weight": ones(HIDDEN)})
    for i in range(layers):
        at = f"model.layers.{i}."
        t = {at + "input_layernorm.weight": ones(HIDDEN), at + "post_attention_layernorm.weight": ones(HIDDEN)}
        for name, rows, cols in (("q", HEADS * DIM, HIDDEN), ("k", KV_HEADS * DIM, HIDDEN), ("v", KV_HEADS * DIM, HIDDEN), ("o", HIDDEN, HEADS * DIM)):
            t[f"{at}self_attn.{name}_proj.weight"] = normal(rows, cols)
        t[at + "self_attn.q_norm.weight"], t[at + "self_attn.k_norm.weight"] = ones(DIM), ones(DIM)
        t[at + "mlp.gate.weight"] = normal(EXPERTS, HIDDEN)
        for e in range(EXPERTS):
            for name, shape in (("gate", (WIDTH, HIDDEN)), ("up", (WIDTH, HIDDEN)), ("down", (HIDDEN, WIDTH))):
                t[f"{at}mlp.experts.{e}.{name}_proj.weight"] = normal(*shape)
        save(f"model-{i:02d}.safetensors", t)
    (out / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": index}))
    config = dict(
        architectures=["Qwen3MoeForCausalLM"], model_type="qwen3_moe", hidden_size=HIDDEN, intermediate_size=6144, num_hidden_layers=layers,
        num_attention_heads=HEADS, num_key_value_heads=KV_HEADS, head_dim=DIM, num_experts=EXPERTS, num_experts_per_tok=8, moe_intermediate_size=WIDTH,
        norm_topk_prob=True, vocab_size=WORDS, max_position_embeddings=40960, rms_norm_eps=1e-6, rope_theta=1e6, tie_word_embeddings=True, eos_token_id=2, dtype="bfloat16",
    )  # fmt: skip
    (out / "config.json").write_text(json.dumps(config, indent=2))
    for f in pathlib.Path(tokenizer).glob("*token*.json"):
        shutil.copy(f, out)


if __name__ == "__main__":
    main(*sys.argv[1:])
