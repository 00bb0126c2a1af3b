"""Writes the goldens of GPT-2 in model/testdata: tiny random checkpoints, saved
by transformers itself, and what PyTorch computes with them.

    python scripts/goldens/gpt2.py            writes them again
    python scripts/goldens/gpt2.py --check    compares with what is committed

As model.py says, but of a language model a batch is
    a.ids, a.offsets    what the model reads, sequences laid end to end
    a.targets           the id to be predicted at each token, -1: none (a prompt)
and instead of a classifier's logits there are
    logits              for every token of batch a
"""

import json

import torch
import transformers
from safetensors.torch import save_file
from transformers import AutoModelForSequenceClassification, GPT2Config, GPT2LMHeadModel, GPT2Model

import model as classifiers
from common import ROOT, main

NAMES = ["gpt2", "gpt2-options", "gpt2-base", "gpt2-fused", "gpt2-classifier", "gpt2-padded"]


def config(**more):
    small = dict(vocab_size=96, n_embd=32, n_layer=3, n_head=4, n_positions=32, initializer_range=0.2)
    return GPT2Config(**small | dict(resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0, bos_token_id=95, eos_token_id=95) | more)


def language_model(config, seed):
    return classifiers.randomise(GPT2LMHeadModel._from_config(config, attn_implementation="eager"), seed)


def batch(lengths, prompts, low, high, seed):
    """Texts with ids in [low, high) that end with 95, of whose first words, the
    prompts, nothing is predicted. A text's last word is predicted but not read."""
    g = torch.Generator().manual_seed(seed)
    ids, targets = [], []
    for length, prompt in zip(lengths, prompts):
        text = torch.cat([torch.randint(low, high, (length,), generator=g), torch.tensor([95])])
        ids.append(text[:-1])
        target = text[1:].clone()
        target[: max(0, prompt - 1)] = -1
        targets.append(target)
    offsets = torch.tensor([0, *torch.tensor(lengths).cumsum(0).tolist()])
    return dict(ids=torch.cat(ids), offsets=offsets, targets=torch.cat(targets))


def batches():
    return batch([20, 3, 11, 7, 5], [9, 1, 5, 0, 5], 4, 60, 1), batch([4, 13, 6, 9], [2, 0, 3, 8], 30, 80, 2)


def run(model, data):
    """Logits and hidden states of each token, sequence by sequence: PyTorch pads
    on the right and masks."""
    rows = [slice(s, e) for s, e in zip(data["offsets"][:-1], data["offsets"][1:])]
    pad = torch.nn.utils.rnn.pad_sequence
    ids = pad([data["ids"][r] for r in rows], True, 0)
    mask = pad([torch.ones_like(data["ids"][r]) for r in rows], True)
    out = model(input_ids=ids, attention_mask=mask, output_hidden_states=True)
    return out, mask.bool()


def loss_of(model, data, run=run):
    out, mask = run(model, data)
    return torch.nn.functional.cross_entropy(out.logits[mask], data["targets"], ignore_index=-1) + getattr(out, "router_loss", 0)


def likelihood_of(model, data, run=run):
    out, mask = run(model, data)
    return -torch.nn.functional.cross_entropy(out.logits[mask], data["targets"], ignore_index=-1, reduction="sum")


def golden(model, path, steps=True, keep=(), more=None, run=run, ours=None):
    """ours gives the parameters our names; keep is of those of transformers."""
    model.double()
    data = batches()
    out, mask = run(model, data[0])
    g = {f"{which}.{key}": value for which, d in zip("ab", data) for key, value in d.items()}
    g |= {f"hidden.{i}": h[mask] for i, h in enumerate(out.hidden_states)}
    loss = loss_of(model, data[0], run)
    loss.backward()
    g |= dict(logits=out.logits[mask], loss=loss, likelihood=likelihood_of(model, data[0], run))
    g |= {f"grad.{name}": p.grad.clone() for name, p in classifiers.named(model)}
    if more:
        g |= more(model, g)
    if steps:
        g["losses"], g["norms"] = classifiers.train(model, data, lambda *args: loss_of(*args, run))
        g |= {f"final.{name}": p for name, p in classifiers.named(model) if any(k in name for k in keep)}
    classifiers.write(ours(g) if ours else g, path)


class FusedMLP(torch.nn.Module):
    """c_proj·(P·gelu(c_fc·x + b1)) + b2 of centroids, in place of GPT2MLP."""

    def __init__(self, mlp, members):
        super().__init__()
        hidden, width = mlp.c_fc.weight.shape[0], len(members)
        self.c_fc, self.c_proj, self.act = mlp.c_fc, mlp.c_proj, mlp.act
        self.p = torch.tensor([float(len(m)) for m in members], dtype=torch.float64)
        with torch.no_grad():  # centroids of the sub-MLPs
            self.c_fc.weight = torch.nn.Parameter(torch.stack([mlp.c_fc.weight[:, m].mean(1) for m in members], 1))
            self.c_fc.bias = torch.nn.Parameter(torch.stack([mlp.c_fc.bias[m].mean() for m in members]))
            self.c_proj.weight = torch.nn.Parameter(torch.stack([mlp.c_proj.weight[m].mean(0) for m in members]))
        self.c_fc.nf = width
        assert self.c_fc.weight.shape == (hidden, width)

    def forward(self, x):
        return self.c_proj(self.p * self.act(self.c_fc(x)))


def fused(path):
    """Two of three MLPs narrowed from 128 units to 24, P kept beside them."""
    model = language_model(config(), 42)
    g = torch.Generator().manual_seed(43)
    model.scales, scales, layers = {}, [], {}
    for i in (1, 2):
        members = [[k] for k in range(24)]  # no cluster is empty
        for unit, k in zip(range(24, 128), torch.randint(0, 24, (104,), generator=g).tolist()):
            members[k].append(unit)
        mlp = model.transformer.h[i].mlp = FusedMLP(model.transformer.h[i].mlp, members)
        block = f"transformer.h.{i}.mlp"
        model.scales |= {block + ".c_fc.weight": mlp.p, block + ".c_fc.bias": mlp.p, block + ".c_proj.weight": mlp.p[:, None]}
        scales.append((block + ".mlp_scale", mlp.p.float()))
        layers[block] = dict(width=24)
    model.config.save_pretrained(path)
    text = json.loads((path / "config.json").read_text())
    text |= dict(architectures=["GPT2LMHeadModel"], dtype="float32")
    text["mlpfusion"] = dict(version=1, method="fusion", scale="keep", layers=layers, seed=0)
    (path / "config.json").write_text(json.dumps(text, indent=2) + "\n")
    tensors = {name: p.detach() for name, p in model.named_parameters()} | dict(scales)
    save_file(tensors, path / "model.safetensors", metadata={"format": "pt"})
    golden(model, path, keep=["wte", "h.1.mlp", "h.0.mlp.c_proj"])


def classifier(path):
    """GPT2ForSequenceClassification, which reads each sequence's last token."""
    c = config(n_layer=2, n_inner=48, num_labels=3, pad_token_id=0)
    model = classifiers.classifier(c, 44)
    model.save_pretrained(path)
    classifiers.golden(model, path, keep=["wpe", "wte", "score", "h.1.mlp"])


def padded(path):
    """A classifier whose padding is a word too: the last token that is not it counts."""
    c = config(n_layer=1, n_inner=48, num_labels=3, pad_token_id=0)
    ids, offsets = (classifiers.batches(c)[0][key] for key in ("ids", "offsets"))
    c.pad_token_id = int(ids[offsets[1] - 1])
    model = classifiers.classifier(c, 46)
    model.save_pretrained(path)
    classifiers.golden(model, path, steps=False)


def base(path):
    """The transformer saved alone, as published checkpoints are: no prefix."""
    model = classifiers.randomise(GPT2Model._from_config(config(n_layer=1), attn_implementation="eager"), 45)
    model.save_pretrained(path)
    whole = GPT2LMHeadModel.from_pretrained(path, attn_implementation="eager").eval()
    golden(whole, path, steps=False)


def write_all(out):
    torch.set_num_threads(1)
    transformers.utils.logging.disable_progress_bar()
    for name in NAMES:
        (out / name).mkdir(parents=True)
    keep = ["wte", "wpe", "h.1.attn.c_attn", "h.2.mlp", "h.0.attn.c_proj", "ln_f"]
    for name, seed, c in [
        ("gpt2", 40, config()),
        ("gpt2-options", 41, config(n_inner=40, n_layer=2, scale_attn_by_inverse_layer_idx=True, scale_attn_weights=False, activation_function="relu", tie_word_embeddings=False)),
    ]:
        model = language_model(c, seed)
        model.save_pretrained(out / name)
        golden(model, out / name, keep=keep)
    base(out / "gpt2-base")
    fused(out / "gpt2-fused")
    classifier(out / "gpt2-classifier")
    padded(out / "gpt2-padded")


if __name__ == "__main__":
    main(write_all, ROOT / "model" / "testdata", NAMES)
