"""Writes the goldens of nn's operations, nn/testdata/ops: inputs, outputs and
gradients in float64, rounded to float32, by PyTorch and the functions of
transformers' models. NAME.json says which cases NAME.safetensors holds.

    python scripts/goldens/ops.py [--check]
"""

import json
from types import SimpleNamespace

import torch
from safetensors.torch import save_file
from transformers import masking_utils
from transformers.models.deepseek_v3 import modeling_deepseek_v3
from transformers.models.gemma2 import modeling_gemma2
from transformers.models.llama import modeling_llama

from common import ROOT, main


def random(seed, *shape):
    """Numbers that float32 holds."""
    g = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=g, dtype=torch.float32).double().requires_grad_(True)


def gradients(y, dy, *inputs):
    return torch.autograd.grad((y * dy).sum(), inputs)


def attention():
    """Queries, keys and values side by side in x, sequences of 1, 7 and 12 tokens."""
    lengths = [1, 7, 12]
    options = [
        dict(heads=2, kvHeads=2, dim=4, causal=False),
        dict(heads=4, kvHeads=2, dim=3, causal=True),
        dict(heads=2, kvHeads=1, dim=4, causal=True, window=5),
        dict(heads=2, kvHeads=2, dim=4, causal=False, window=3),
        dict(heads=3, kvHeads=1, dim=4, causal=True, softcap=1.5, scale=0.9),
        dict(heads=2, kvHeads=2, dim=4, causal=False, softcap=0.8),
    ]
    for i, o in enumerate(options):
        heads, kv, dim, window = o["heads"], o["kvHeads"], o["dim"], o.get("window", 0)
        x = random(i, sum(lengths), (heads + 2 * kv) * dim)
        dy = random(100 + i, sum(lengths), heads * dim)
        ys = []
        for part in x.split(lengths):
            q, k, v = (s.unflatten(-1, (-1, dim)).transpose(0, 1)[None] for s in part.split([heads * dim, kv * dim, kv * dim], -1))
            match o["causal"], window:
                case True, 0:
                    seen = masking_utils.causal_mask_function
                case True, _:
                    seen = masking_utils.sliding_window_causal_mask_function(window)
                case False, 0:
                    seen = masking_utils.bidirectional_mask_function
                case False, _:
                    seen = masking_utils.sliding_window_bidirectional_mask_function(window)
            place = torch.arange(len(part))
            mask = seen(0, 0, place[:, None], place[None]).expand(len(part), len(part))
            mask = torch.zeros(mask.shape, dtype=torch.double).masked_fill(~mask, float("-inf"))
            module = SimpleNamespace(head_dim=dim, num_key_value_groups=heads // kv, training=False)
            # Its softmax is rounded to float32.
            y, _ = modeling_gemma2.eager_attention_forward(module, q, k, v, mask, scaling=o.get("scale"), softcap=o.get("softcap"))
            ys.append(y[0].flatten(1))
        y = torch.cat(ys)
        yield o, dict(x=x, dy=dy, y=y, dx=gradients(y, dy, x)[0])


def rope():
    """Rotations of some columns of x, each row at its position."""
    positions = torch.tensor([0, 1, 2, 77, 1000, 8191], dtype=torch.int32)
    options = [
        dict(heads=2, dim=8, start=0, cols=16, interleaved=False, factor=1.0),
        dict(heads=1, dim=10, start=5, cols=20, interleaved=False, factor=1.25, rotary=6),
        dict(heads=2, dim=6, start=2, cols=15, interleaved=True, factor=1.0, rotary=4),
    ]
    for i, o in enumerate(options):
        x, dy = random(i, len(positions), o["cols"]), random(100 + i, len(positions), o["cols"])
        dim, n = o["dim"], o.pop("rotary", o["dim"])
        frequencies = 10000.0 ** (-torch.arange(0, n, 2) / n)
        module = SimpleNamespace(inv_freq=frequencies, attention_scaling=o["factor"], rope_type="default")
        cos, sin = modeling_llama.LlamaRotaryEmbedding.forward(module, torch.empty(0), positions[None])
        heads = x[:, o["start"] : o["start"] + o["heads"] * dim].unflatten(-1, (-1, dim)).transpose(0, 1)[None]
        if o["interleaved"]:
            y, _ = modeling_deepseek_v3.apply_rotary_pos_emb_interleave(heads[..., :n], heads[..., :n], cos.double(), sin.double())
            y = y.unflatten(-1, (2, -1)).transpose(-1, -2).flatten(-2)  # back in the order of the input
        else:
            y, _ = modeling_llama.apply_rotary_pos_emb(heads[..., :n], heads[..., :n], cos.double(), sin.double())
        y = torch.cat([y, heads[..., n:]], -1)[0].transpose(0, 1).flatten(1)
        y = torch.cat([x[:, : o["start"]], y, x[:, o["start"] + o["heads"] * dim :]], -1)
        yield o, dict(x=x, dy=dy, y=y, dx=gradients(y, dy, x)[0], positions=positions, frequencies=frequencies)


def write(out):
    out.mkdir(parents=True, exist_ok=True)
    for cases in (attention, rope):
        options, tensors = [], {}
        for i, (o, named) in enumerate(cases()):
            options.append(o)
            tensors |= {f"{i}.{name}": (t.detach().float() if t.is_floating_point() else t).contiguous().clone() for name, t in named.items()}
        (out / f"{cases.__name__}.json").write_text("[\n" + ",\n".join(map(json.dumps, options)) + "\n]\n")
        save_file(tensors, out / f"{cases.__name__}.safetensors")


if __name__ == "__main__":
    main(write, ROOT / "nn" / "testdata" / "ops")
