"""Writes the goldens of nn's operations, nn/testdata/ops: inputs, outputs and
gradients in float64, rounded to float32, by PyTorch and the functions of
transformers' models. NAME.json says which cases NAME.safetensors holds.

    python scripts/goldens/ops.py [--check]
"""

import json
from contextlib import contextmanager
from types import SimpleNamespace

import torch
from safetensors.torch import save_file
from transformers import masking_utils
from transformers.activations import ACT2FN
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


def rmsnorm():
    """x normalised whole (heads 0), or some of its columns by head; Gemma's has 1 + gain."""
    options = [
        dict(rows=35, cols=20, heads=0, start=0, eps=1e-5, onePlus=False),
        dict(rows=3, cols=20, heads=0, start=0, eps=0.1, onePlus=True),
        dict(rows=18, cols=28, heads=3, start=4, eps=1e-6, onePlus=True),
        dict(rows=18, cols=28, heads=2, start=12, eps=1e-6, onePlus=False),
        dict(rows=5, cols=28, heads=1, start=0, eps=1e-5, onePlus=False),
    ]
    for i, o in enumerate(options):
        heads, start = max(1, o["heads"]), o["start"]
        dim = 16 if o["heads"] == 1 else o["cols"] if o["heads"] == 0 else 8
        x, dy, gain = random(i, o["rows"], o["cols"]), random(100 + i, o["rows"], o["cols"]), random(200 + i, dim)
        kind = modeling_gemma2.Gemma2RMSNorm if o["onePlus"] else modeling_llama.LlamaRMSNorm
        norm = kind(dim, eps=o["eps"])
        del norm.weight  # a parameter, which has no history
        norm.weight = gain
        # Both compute in float32; the double's digits are wanted.
        with doubled():
            part = norm(x[:, start : start + heads * dim].unflatten(1, (heads, dim))).flatten(1)
        y = torch.cat([x[:, :start], part, x[:, start + heads * dim :]], 1)
        dx, dgain = gradients(y, dy, x, gain)
        yield o, dict(x=x, dy=dy, gain=gain, y=y, dx=dx, dgain=dgain)


@contextmanager
def doubled():
    """Has conversions to float32 leave doubles as they are."""
    to, plain = torch.Tensor.to, torch.Tensor.float
    torch.Tensor.to = lambda x, *a, **k: x if a == (torch.float32,) else to(x, *a, **k)
    torch.Tensor.float = lambda x: x
    try:
        yield
    finally:
        torch.Tensor.to, torch.Tensor.float = to, plain


def gated():
    """The units of gated MLPs, with P or without."""
    options = [dict(units=37, act="silu"), dict(units=16, act="gelu_pytorch_tanh"), dict(units=5, act="silu", scaled=True)]
    for i, o in enumerate(options):
        gate, up, dy = (random(100 * j + i, 6, o["units"]) for j in range(3))
        scale = 1 + random(300 + i, o["units"]).detach().abs().float().double() if o.pop("scaled", False) else torch.ones(o["units"])
        y = scale * ACT2FN[o["act"]](gate) * up
        dgate, dup = gradients(y, dy, gate, up)
        yield o, dict(gate=gate, up=up, dy=dy, scale=scale, y=y, dgate=dgate, dup=dup)


def lowrank():
    """A layer with two low-rank paths beside it, each to some of its outputs."""
    options = [dict(rows=11, inputs=8, outputs=10, froms=[0, 6], widths=[4, 4], rank=3, act=""), dict(rows=5, inputs=6, outputs=7, froms=[0], widths=[7], rank=2, act="silu")]
    for i, o in enumerate(options):
        x, w, b, dy = random(i, o["rows"], o["inputs"]), random(100 + i, o["outputs"], o["inputs"]), random(200 + i, o["outputs"]), random(300 + i, o["rows"], o["outputs"])
        y = torch.nn.functional.linear(x, w, b)
        named = dict(x=x, w=w, b=b, dy=dy)
        for j, (start, width) in enumerate(zip(o["froms"], o["widths"])):
            a, up = random(400 + 10 * i + j, o["rank"], o["inputs"]), random(500 + 10 * i + j, width, o["rank"])
            y = y + torch.nn.functional.pad(0.5 * x @ a.T @ up.T, (start, o["outputs"] - start - width))
            named |= {f"a{j}": a, f"b{j}": up}
        y = ACT2FN[o["act"]](y) if o["act"] else y
        wanted = [name for name in named if name != "dy"]
        named |= {"d" + name: d for name, d in zip(wanted, gradients(y, dy, *(named[name] for name in wanted)))}
        yield o, named | dict(y=y)


def vocabulary():
    """The loss of a head whose logits are capped, as Gemma 2's are."""
    options = [dict(words=50, hidden=6, scale=1.0, softcap=1.5), dict(words=31, hidden=4, scale=0.7, softcap=30.0), dict(words=20, hidden=4, scale=1.0, softcap=0.0)]
    for i, o in enumerate(options):
        x, w = random(i, 9, o["hidden"]), random(100 + i, o["words"], o["hidden"])
        targets = torch.randint(o["words"], (9,), generator=torch.Generator().manual_seed(i))
        logits = o["scale"] * x @ w.T
        if o["softcap"]:
            logits = torch.tanh(logits / o["softcap"]) * o["softcap"]
        loss = torch.nn.functional.cross_entropy(logits, targets)
        dx, dw = torch.autograd.grad(loss, (x, w))
        yield o | dict(loss=loss.item()), dict(x=x, w=w, targets=targets.int(), logits=logits, dx=dx, dw=dw)


def write(out):
    out.mkdir(parents=True, exist_ok=True)
    for cases in (attention, rope, rmsnorm, gated, lowrank, vocabulary):
        options, tensors = [], {}
        for i, (o, named) in enumerate(cases()):
            options.append(o)
            tensors |= {f"{i}.{name}": (t.detach().float() if t.is_floating_point() else t).contiguous().clone() for name, t in named.items()}
        (out / f"{cases.__name__}.json").write_text("[\n" + ",\n".join(map(json.dumps, options)) + "\n]\n")
        save_file(tensors, out / f"{cases.__name__}.safetensors")


if __name__ == "__main__":
    main(write, ROOT / "nn" / "testdata" / "ops")
