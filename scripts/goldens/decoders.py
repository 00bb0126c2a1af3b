"""Writes the goldens of today's decoders in model/testdata: tiny random checkpoints,
saved by transformers itself, and what PyTorch computes with them.

    python scripts/goldens/decoders.py            writes them again
    python scripts/goldens/decoders.py --check    compares with what is committed

As gpt2.py says. Matrices that we state as parts of one of the checkpoint's have their
gradients under our names. The text that follows a prompt, greedily, is
    prompt, text
"""

import copy
import json

import torch
import transformers
from transformers import AutoConfig, AutoModelForCausalLM
from transformers.models.llama.modeling_llama import LlamaDecoderLayer

import gpt2
import model as classifiers
from common import ROOT, main

SMALL = dict(
    vocab_size=96, hidden_size=32, intermediate_size=48, num_hidden_layers=3, num_attention_heads=4, num_key_value_heads=2,
    max_position_embeddings=64, initializer_range=0.2, bos_token_id=95, eos_token_id=95, pad_token_id=0,
)  # fmt: skip


def rope(kind, theta=1000.0, **more):
    return dict(rope_parameters=dict(rope_type=kind, rope_theta=theta, **more))


# Each is a family, its options and whether config.json is written as older versions did.
MODELS = {
    "llama": ("llama", dict(head_dim=12, attention_bias=True, mlp_bias=True), False),
    "llama-3": ("llama", rope("llama3", factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0, original_max_position_embeddings=48) | dict(tie_word_embeddings=True), True),
    "llama-linear": ("llama", rope("linear", factor=4.0) | dict(num_key_value_heads=4, num_hidden_layers=2), True),
    "mistral": ("mistral", rope("yarn", 100.0, factor=2.0, attention_factor=1.3, truncate=False) | dict(sliding_window=6, num_hidden_layers=2), True),
    "qwen2": ("qwen2", dict(use_sliding_window=True, sliding_window=5, max_window_layers=1), False),
    "qwen3": ("qwen3", rope("yarn", factor=4.0, original_max_position_embeddings=16, mscale=1.2, mscale_all_dim=0.7) | dict(head_dim=12, tie_word_embeddings=True, num_hidden_layers=2), False),
    "gemma2": ("gemma2", dict(head_dim=12, sliding_window=7, query_pre_attn_scalar=10, attn_logit_softcapping=2.0, final_logit_softcapping=3.0, tie_word_embeddings=True), False),
    "gemma3": ("gemma3_text", dict(head_dim=12, sliding_window=5, query_pre_attn_scalar=10, tie_word_embeddings=True, layer_types=["sliding_attention", "full_attention", "sliding_attention"]), False),
    "phi3": ("phi3", rope("default", partial_rotary_factor=0.5) | dict(num_hidden_layers=2), False),
    "olmo2": ("olmo2", dict(attention_bias=True, num_hidden_layers=2), False),
    "llama-yarn": ("llama", rope("yarn", 100.0, factor=4.0, original_max_position_embeddings=64, beta_fast=4.0) | dict(head_dim=16, num_key_value_heads=1, num_hidden_layers=2), False),
}  # fmt: skip
CLASSIFIERS = {
    "llama-classifier": ("llama", dict(num_hidden_layers=2, num_labels=3)),
    "gemma3-classifier": ("gemma3_text", dict(num_hidden_layers=2, head_dim=8, sliding_window=32, layer_types=["full_attention", "sliding_attention"], num_labels=1)),
}
# Layers of different widths and numbers of key heads, which transformers has no class for:
# n_heads_in_group, what block_configs says of the MLP and the width that this is.
BLOCKS = [(2, dict(ffn_mult=12.0), 256), (4, dict(intermediate_size=24), 24), (1, dict(ffn_mult=9.6), 256)]
KEEP = ["embed_tokens", "layers.1.self_attn", "layers.0.mlp", "model.norm", "score"]


def config(family, more):
    return AutoConfig.for_model(family, **SMALL | more)


def old_keys(path):
    """Writes the rotary positions' keys of config.json as versions before 5 did."""
    text = json.loads((path / "config.json").read_text())
    scaling = text.pop("rope_parameters")
    text["rope_theta"] = scaling.pop("rope_theta")
    text["rope_scaling"] = scaling
    (path / "config.json").write_text(json.dumps(text, indent=2) + "\n")


class Tokens:
    """What a model gives for each token."""

    def __init__(self, outs):
        self.outs = outs
        self.logits = torch.cat([o.logits[0] for o in outs])
        self.hidden_states = [torch.cat(h) for h in zip(*([s[0] for s in o.hidden_states] for o in outs))]


def each(model, data):
    """Runs each text alone: in float64 a padded row that sees only padding is NaN."""
    rows = [slice(s, e) for s, e in zip(data["offsets"][:-1], data["offsets"][1:])]
    return Tokens([model(input_ids=data["ids"][r][None], output_hidden_states=True) for r in rows]), slice(None)


def more(model, g):
    """What follows a prompt, and the gradients of a fused matrix's two halves."""
    halves = {}
    for name, v in g.items():
        if name.startswith("grad.") and "gate_up_proj.weight" in name:
            for part, half in zip(("gate_proj", "up_proj"), v.chunk(2)):
                halves[name.replace("gate_up_proj", part)] = half
    prompt = g["a.ids"][:9]
    with torch.no_grad():
        text = model.generate(prompt[None], max_new_tokens=24, do_sample=False, eos_token_id=None, pad_token_id=0)
    return halves | dict(prompt=prompt, text=text[0, 9:])


def nemotron(path):
    """A Llama with layers of its own kinds, saved as nemotron-nas."""
    c = config("llama", rope("llama3", factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0, original_max_position_embeddings=48) | dict(hidden_size=16))
    model = AutoModelForCausalLM.from_config(c, attn_implementation="eager")
    for i, (group, _, width) in enumerate(BLOCKS):
        own = copy.deepcopy(c)
        own.num_key_value_heads, own.intermediate_size, own._attn_implementation = c.num_attention_heads // group, width, "eager"
        model.model.layers[i] = LlamaDecoderLayer(own, i)
    classifiers.randomise(model, 90).save_pretrained(path)
    text = json.loads((path / "config.json").read_text())
    for key in ("intermediate_size", "num_key_value_heads", "head_dim"):
        del text[key]
    part = dict(no_op=False, replace_with_linear=False)
    text |= dict(
        model_type="nemotron-nas",
        architectures=["DeciLMForCausalLM"],
        block_configs=[dict(attention=dict(n_heads_in_group=g, **part, window_length=None), ffn=dict(**f, **part)) for g, f, _ in BLOCKS],
    )
    (path / "config.json").write_text(json.dumps(text, indent=2) + "\n")
    gpt2.golden(model, path, keep=["layers.1.self_attn", "layers.1.mlp", "model.norm"], more=more, run=each)


def write_all(out):
    torch.set_num_threads(1)
    transformers.utils.logging.disable_progress_bar()
    for seed, (name, (family, options, old)) in enumerate(MODELS.items(), start=50):
        model = AutoModelForCausalLM.from_config(config(family, options), attn_implementation="eager")
        classifiers.randomise(model, seed).save_pretrained(out / name)
        if old:
            old_keys(out / name)
            again = AutoModelForCausalLM.from_pretrained(out / name, attn_implementation="eager")
            assert again.config.rope_parameters == model.config.rope_parameters
        gpt2.golden(model, out / name, keep=KEEP, more=more, run=each)
    nemotron(out / "nemotron-nas")
    for seed, (name, (family, options)) in enumerate(CLASSIFIERS.items(), start=80):
        model = classifiers.classifier(config(family, options), seed)
        model.save_pretrained(out / name)
        classifiers.golden(model, out / name, keep=KEEP)


if __name__ == "__main__":
    main(write_all, ROOT / "model" / "testdata", [*MODELS, "nemotron-nas", *CLASSIFIERS])
