"""Writes the goldens of today's mixtures of experts in model/testdata: tiny random
checkpoints, saved by transformers itself, and what PyTorch computes with them.

    python scripts/goldens/mixtures.py            writes them again
    python scripts/goldens/mixtures.py --check    compares with what is committed

As decoders.py says. transformers keeps the experts of a layer in stacks; gradients and
parameters are here under the names of an expert's own matrices. Of each mixture, in the
order of the layers, there are
    expert.0 …          each token's experts (tokens × top k)
    weight.0 …          and what multiplies their outputs
and where the routers' loss is part of the loss
    balance_loss
NAME-stacked is NAME with the stacks in its file.
"""

import sys

import torch
import transformers
from transformers import AutoConfig, AutoModelForCausalLM

import decoders
import gpt2
import model as classifiers
from common import ROOT, main

SMALL = decoders.SMALL | dict(hidden_size=24, intermediate_size=20, num_hidden_layers=2, max_position_embeddings=40)

LATENT = dict(num_key_value_heads=4, kv_lora_rank=10, qk_nope_head_dim=8, qk_rope_head_dim=6, v_head_dim=7, moe_intermediate_size=10, first_k_dense_replace=1)
YARN = decoders.rope("yarn", 100.0, factor=4.0, original_max_position_embeddings=10, mscale=0.9, mscale_all_dim=0.7)
LOSS = dict(output_router_logits=True, router_aux_loss_coef=0.3)
# Each is a family and its options.
MODELS = {
    "mixtral": ("mixtral", LOSS | dict(num_local_experts=5)),
    "qwen2-moe": ("qwen2_moe", LOSS | dict(num_experts=6, num_experts_per_tok=4, moe_intermediate_size=12, shared_expert_intermediate_size=28, mlp_only_layers=[1], num_hidden_layers=3, use_sliding_window=True, sliding_window=5, max_window_layers=2)),
    "qwen3-moe": ("qwen3_moe", LOSS | dict(num_experts=8, num_experts_per_tok=3, norm_topk_prob=True, moe_intermediate_size=10, decoder_sparse_step=2, head_dim=12, num_hidden_layers=3, use_sliding_window=True, sliding_window=6)),
    "olmoe": ("olmoe", LOSS | dict(num_experts=6, num_experts_per_tok=3, intermediate_size=12, clip_qkv=1.2)),
    "granitemoe": ("granitemoe", LOSS | dict(num_local_experts=4, intermediate_size=12, embedding_multiplier=1.7, attention_multiplier=0.3, residual_multiplier=0.6, logits_scaling=1.4, tie_word_embeddings=True)),
    "deepseek-v2": ("deepseek_v2", LATENT | dict(rms_norm_eps=1e-3, q_lora_rank=None, n_routed_experts=6, num_experts_per_tok=3, n_shared_experts=2, routed_scaling_factor=1.3)),
    "deepseek-v2-groups": ("deepseek_v2", LATENT | YARN | dict(q_lora_rank=10, n_routed_experts=8, num_experts_per_tok=3, n_shared_experts=1, n_group=4, topk_group=2, topk_method="group_limited_greedy", attention_bias=True)),
    "deepseek-v3": ("deepseek_v3", LATENT | YARN | dict(q_lora_rank=10, n_routed_experts=8, num_experts_per_tok=3, n_shared_experts=1, n_group=4, topk_group=2, num_hidden_layers=3)),
    "deepseek-v3-halves": ("deepseek_v3", LATENT | dict(q_lora_rank=None, n_routed_experts=6, num_experts_per_tok=2, n_shared_experts=2, n_group=1, topk_group=1, norm_topk_prob=False, rope_interleave=False)),
}  # fmt: skip
PARTS = {"mixtral": ("w1", "w3", "w2")}  # of an expert the names of gate, up and down, where they are others
RENAMED = {"mixtral": (".mlp.", ".block_sparse_moe."), "granitemoe": (".router.", ".router.layer.")}
STACKED = ["mixtral"]
KEEP = ["embed_tokens", "layers.1.self_attn", "layers.0.mlp", "layers.0.block_sparse_moe", "model.norm"]


class Watch:
    """Records what the experts of each layer are given, text by text."""

    def __init__(self, model):
        self.seen = {}
        layers = [m for name, m in model.named_modules() if name.endswith(".experts")]
        self.hooks = [m.register_forward_pre_hook(lambda m, args, i=i: self.seen.setdefault(i, []).append(args[1:])) for i, m in enumerate(layers)]

    def close(self):
        for h in self.hooks:
            h.remove()

    def golden(self):
        g = {}
        for i, texts in self.seen.items():
            for k, name in enumerate(("expert", "weight")):
                g[f"{name}.{i}"] = torch.cat([t[k] for t in texts])
        return g


def correction_biases(model):
    """What is added to the scores of experts when they are chosen: no parameters."""
    return [b for name, b in model.named_buffers() if name.endswith("e_score_correction_bias")]


def run(model, data):
    """As decoders.each, with the routers' loss of all texts together."""
    out, rows = decoders.each(model, data)
    if getattr(model.config, "output_router_logits", False):
        balance = sys.modules[type(model).__module__].load_balancing_loss_func
        layers = tuple(torch.cat(layer) for layer in zip(*(o.router_logits for o in out.outs)))
        experts = layers[0].shape[1]
        out.balance_loss = balance(layers, experts, model.config.num_experts_per_tok)
        out.router_loss = model.config.router_aux_loss_coef * out.balance_loss
    return out, rows


def apart(family):
    """A function that gives the values of stacks to the experts' own matrices, under the
    names of the family's checkpoints."""
    gate, up, down = PARTS.get(family, ("gate_proj", "up_proj", "down_proj"))

    def of(g):
        named = {}
        for name, v in g.items():
            name = name.replace(*RENAMED.get(family, ("", "")))
            before, experts, part = name.partition(".experts.")
            if part == "gate_up_proj":
                for e, both in enumerate(v):
                    for key, half in zip((gate, up), both.chunk(2)):
                        named[f"{before}.experts.{e}.{key}.weight"] = half
            elif part == "down_proj":
                for e, matrix in enumerate(v):
                    named[f"{before}.experts.{e}.{down}.weight"] = matrix
            else:
                named[name] = v
        return named

    return of


def write_all(out):
    torch.set_num_threads(1)
    transformers.utils.logging.disable_progress_bar()
    for seed, (name, (family, options)) in enumerate(MODELS.items(), start=90):
        config = AutoConfig.for_model(family, **SMALL | options)
        model = classifiers.randomise(AutoModelForCausalLM.from_config(config, attn_implementation="eager", experts_implementation="eager"), seed)
        for b in correction_biases(model):
            b.copy_(0.2 * torch.randn(b.shape, generator=torch.Generator().manual_seed(seed)))
        model.save_pretrained(out / name)
        if name in STACKED:
            model.save_pretrained(out / f"{name}-stacked", save_original_format=False)

        def more(model, g):
            watch = Watch(model)
            with torch.no_grad():
                routed = run(model, gpt2.batches()[0])[0]
            watch.close()
            loss = dict(balance_loss=routed.balance_loss) if hasattr(routed, "balance_loss") else {}
            return decoders.more(model, g) | watch.golden() | loss

        gpt2.golden(model, out / name, keep=KEEP, more=more, run=run, ours=apart(family))


if __name__ == "__main__":
    main(write_all, ROOT / "model" / "testdata", [*MODELS, *(f"{name}-stacked" for name in STACKED)])
