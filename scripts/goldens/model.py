"""Writes the goldens of model/: tiny random checkpoints, saved by transformers
itself, and what PyTorch computes with them.

    python scripts/goldens/model.py            writes model/testdata/ again
    python scripts/goldens/model.py --check    compares with what is committed

Each folder is a checkpoint (config.json, model.safetensors) and golden.safetensors:
    a.ids, a.types, a.offsets, a.labels    a batch, sequences laid end to end
    b.…                                    a second batch, other rows of the tables
    hidden.0 … hidden.L     states of batch a after the embeddings and each layer
    pooled                  of a checkpoint without a classifier
    logits, loss            of batch a
    grad.NAME               gradient of that loss in parameter NAME
    losses, norms           of ten AdamW steps on a, b, a, b …: before each step,
                            the loss and the norm that clipping uses
    final.NAME              some parameters after them
AdamW: lr 1e-3, betas (0.9, 0.98), eps 1e-6, weight decay 0.1 but none on biases
(nor MPNet's table of relative position biases) and LayerNorms; norm clipped to 1.
PyTorch pads to the longest and masks; it computes in float64, so that a golden
carries no rounding but its own to float32. Dropout is 0.
"""

import json

import torch
import transformers
from safetensors.torch import save_file
from transformers import (
    AutoModelForSequenceClassification,
    BertConfig,
    BertForSequenceClassification,
    BertModel,
    DistilBertConfig,
    MPNetConfig,
    RobertaConfig,
)

from common import ROOT, main

VOCAB, HIDDEN, UNITS = 96, 32, 64
SMALL = dict(vocab_size=VOCAB, hidden_size=HIDDEN, num_attention_heads=4, intermediate_size=UNITS)
SMALL |= dict(initializer_range=0.2, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0)
SMALLER = SMALL | dict(hidden_size=24, intermediate_size=48, num_hidden_layers=2)


def bert(layers=3, **more):
    return BertConfig(**SMALL | dict(num_hidden_layers=layers, max_position_embeddings=32) | more)


def roberta():
    return RobertaConfig(**SMALLER, max_position_embeddings=34, type_vocab_size=1, pad_token_id=1, num_labels=3)


def mpnet():
    return MPNetConfig(**SMALLER, max_position_embeddings=34, pad_token_id=1)


def distilbert():
    return DistilBertConfig(
        vocab_size=VOCAB, dim=24, n_heads=4, hidden_dim=48, n_layers=2, max_position_embeddings=32,
        initializer_range=0.2, dropout=0.0, attention_dropout=0.0, seq_classif_dropout=0.0,
    )  # fmt: skip


def randomise(model, seed):
    """Values large enough that nothing is trivially 0 or 1: LayerNorm gains
    about 1, every other parameter (biases too) about 0, deviation 0.2."""
    g = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, p in model.named_parameters():
            p.copy_(0.2 * torch.randn(p.shape, generator=g) + (1.0 if is_norm(name) and name.endswith("weight") else 0.0))
    return model.eval()


def is_norm(name):
    return "norm" in name.lower() or "ln_" in name


def classifier(config, seed):
    return randomise(AutoModelForSequenceClassification.from_config(config, attn_implementation="eager"), seed)


def batch(config, lengths, low, high, seed):
    """Sequences with ids in [low, high); the rows outside stay untouched."""
    g = torch.Generator().manual_seed(seed)
    total = sum(lengths)
    ids = torch.randint(low, high, (total,), generator=g)
    offsets = torch.tensor([0, *torch.tensor(lengths).cumsum(0).tolist()])
    types = torch.zeros(total, dtype=torch.long)
    if getattr(config, "type_vocab_size", 0) > 1:  # the second half of each is a second sentence
        for start, end in zip(offsets[:-1], offsets[1:]):
            types[(start + end) // 2 : end] = 1
    if config.num_labels == 1:
        labels = 5 * torch.rand(len(lengths), generator=g)
    else:
        labels = torch.arange(len(lengths)) % config.num_labels
    return dict(ids=ids, types=types, offsets=offsets, labels=labels)


def batches(config):
    return batch(config, [20, 3, 11, 7, 5], 4, 60, 1), batch(config, [4, 13, 6, 9], 30, 80, 2)


def padded(model, data):
    """The batch as transformers wants it, and the mask of real tokens."""
    rows = [slice(s, e) for s, e in zip(data["offsets"][:-1], data["offsets"][1:])]
    pad = torch.nn.utils.rnn.pad_sequence
    ids = pad([data["ids"][r] for r in rows], True, model.config.pad_token_id)
    mask = pad([torch.ones_like(data["ids"][r]) for r in rows], True)
    inputs = dict(input_ids=ids, attention_mask=mask)
    if getattr(model.config, "type_vocab_size", 0) > 1:
        inputs["token_type_ids"] = pad([data["types"][r] for r in rows], True)
    return inputs, mask.bool()


def loss_of(model, data):
    inputs, mask = padded(model, data)
    labels = data["labels"] if data["labels"].dtype == torch.long else data["labels"].double()
    out = model(**inputs, labels=labels, output_hidden_states=True)
    return out, mask


def unit_scales(model):
    """By parameter name, what divides the squared gradient in the clipping norm:
    a unit that stands for P_k copies has P_k times one copy's gradient, and the
    copies' squares sum to 1/P_k of its square."""
    scales = dict(getattr(model, "scales", {}))
    for block, mlp in getattr(model, "fused", {}).items():
        scales[block + ".intermediate.dense.weight"] = mlp.p[:, None]
        scales[block + ".intermediate.dense.bias"] = mlp.p
        scales[block + ".output.dense.weight"] = mlp.p[None, :]
    return scales


def clip(model, limit=1.0):
    """torch.nn.utils.clip_grad_norm_, with fused units weighed."""
    scales = unit_scales(model)
    if not scales:
        return torch.nn.utils.clip_grad_norm_(model.parameters(), limit)
    norm = sum((p.grad.square() / scales.get(name, 1)).sum() for name, p in named(model) if p.grad is not None).sqrt()
    factor = (limit / (norm + 1e-6)).clamp(max=1.0)
    for _, p in named(model):
        if p.grad is not None:  # of an expert that saw no token it is
            p.grad *= factor
    return norm


def named(model):
    """The parameters under the names of the checkpoint."""
    rename = getattr(model, "rename", lambda name: name)
    return [(rename(name), p) for name, p in model.named_parameters()]


def train(model, data, loss_of, steps=10):
    groups = [
        dict(params=[p for n, p in named(model) if not ("bias" in n or is_norm(n))], weight_decay=0.1),
        dict(params=[p for n, p in named(model) if "bias" in n or is_norm(n)], weight_decay=0.0),
    ]
    optimizer = torch.optim.AdamW(groups, lr=1e-3, betas=(0.9, 0.98), eps=1e-6)
    losses, norms = [], []
    for step in range(steps):
        loss = loss_of(model, data[step % 2])
        optimizer.zero_grad()
        loss.backward()
        norms.append(clip(model).item())
        losses.append(loss.item())
        optimizer.step()
    return torch.tensor(losses, dtype=torch.float64), torch.tensor(norms, dtype=torch.float64)


def golden(model, path, steps=True, keep=()):
    """Writes golden.safetensors of a model with a classifier. keep: substrings of
    the parameters whose final values are written."""
    model.double()
    data = batches(model.config)
    out, mask = loss_of(model, data[0])
    out.loss.backward()
    g = {f"{which}.{key}": value for which, d in zip("ab", data) for key, value in d.items()}
    g |= {f"hidden.{i}": h[mask] for i, h in enumerate(out.hidden_states)}
    g |= dict(logits=out.logits, loss=out.loss)
    g |= {f"grad.{name}": p.grad.clone() for name, p in named(model)}
    if steps:
        g["losses"], g["norms"] = train(model, data, lambda *args: loss_of(*args)[0].loss)
        g |= {f"final.{name}": p for name, p in named(model) if any(k in name for k in keep)}
    write(g, path)


def write(tensors, path):
    narrow = {torch.float64: torch.float32, torch.int64: torch.int32}
    save_file({k: v.detach().to(narrow.get(v.dtype, v.dtype)).contiguous() for k, v in tensors.items()}, path / "golden.safetensors")


class FusedMLP(torch.nn.Module):
    """W2·(P·gelu(W1·x + b1)) + b2 in two halves, in place of a BERT layer's
    intermediate module and its output.dense."""

    def __init__(self, up, down, members):
        super().__init__()
        self.up = torch.nn.Linear(HIDDEN, len(members))
        self.p = torch.tensor([float(len(m)) for m in members], dtype=torch.float64)
        with torch.no_grad():  # centroids of the sub-MLPs
            self.up.weight.copy_(torch.stack([up.weight[m].mean(0) for m in members]))
            self.up.bias.copy_(torch.stack([up.bias[m].mean(0) for m in members]))
            self.down = torch.nn.Linear(len(members), HIDDEN)
            self.down.weight.copy_(torch.stack([down.weight[:, m].mean(1) for m in members], 1))
            self.down.bias.copy_(down.bias)

    def forward(self, x):
        return self.p * torch.nn.functional.gelu(self.up(x))


class Factored(torch.nn.Module):
    """A linear layer cut to rank t: factor_u·(factor_v·x) + bias."""

    def __init__(self, linear, rank):
        super().__init__()
        u, s, v = torch.linalg.svd(linear.weight.detach().double(), full_matrices=False)
        root = s[:rank].sqrt()
        self.factor_v = torch.nn.Parameter((root[:, None] * v[:rank]).float().contiguous())
        self.factor_u = torch.nn.Parameter((u[:, :rank] * root).float().contiguous())
        self.bias = torch.nn.Parameter(linear.bias.detach().clone())

    def forward(self, x):
        return x @ self.factor_v.T @ self.factor_u.T + self.bias


def save_ours(model, path, method, layers, extra=()):
    """A checkpoint in the project's own format: the family's names with the
    shapes that the layers have, and a block in config.json that says so."""
    model.config.save_pretrained(path)
    config = json.loads((path / "config.json").read_text())
    config |= dict(architectures=["BertForSequenceClassification"], dtype="float32")
    config["mlpfusion"] = dict(version=1, method=method, scale="keep", layers=layers, seed=0)
    (path / "config.json").write_text(json.dumps(config, indent=2) + "\n")
    tensors = {name: p.detach() for name, p in named(model)} | {k: v.float() for k, v in extra}
    save_file(tensors, path / "model.safetensors", metadata={"format": "pt"})


def fused(path):
    """Two of three MLPs narrowed from 64 units to 16, P kept beside them."""
    model = classifier(bert(), 20)
    model.fused = {}
    g = torch.Generator().manual_seed(21)
    for i in (1, 2):
        layer = model.bert.encoder.layer[i]
        members = [[k] for k in range(16)]  # no cluster is empty
        for unit, k in zip(range(16, UNITS), torch.randint(0, 16, (UNITS - 16,), generator=g).tolist()):
            members[k].append(unit)
        mlp = FusedMLP(layer.intermediate.dense, layer.output.dense, members)
        layer.output.dense = mlp.down
        del mlp.down
        layer.intermediate = mlp
        model.fused[f"bert.encoder.layer.{i}"] = mlp
    model.rename = lambda name: name.replace("intermediate.up.", "intermediate.dense.")
    layers = {name: dict(width=16) for name in model.fused}
    save_ours(model, path, "fusion", layers, [(name + ".mlp_scale", mlp.p) for name, mlp in model.fused.items()])
    golden(model, path, keep=["word_embeddings", "layer.1.intermediate.dense", "layer.1.output.dense", "layer.0.output.dense", "classifier"])


def svd(path):
    """One of two MLPs with both matrices as factors of rank 12."""
    model = classifier(bert(layers=2), 22)
    layer = model.bert.encoder.layer[1]
    layer.intermediate.dense = Factored(layer.intermediate.dense, 12)
    layer.output.dense = Factored(layer.output.dense, 12)
    save_ours(model, path, "svd", {"bert.encoder.layer.1": dict(width=UNITS, rank=12, method="svd")})
    golden(model, path, steps=False)


def half(path, dtype):
    """16-bit storage of a model of few kB: what it computes with its rounded weights."""
    config = bert(layers=1, vocab_size=80, hidden_size=8, num_attention_heads=2, intermediate_size=16)
    model = classifier(config, 30).to(dtype)
    model.save_pretrained(path)
    golden(model, path, steps=False)


def base(path):
    """A base model saved alone, without a prefix and without a head."""
    model = randomise(BertModel(bert(layers=1), add_pooling_layer=True), 31)
    model.save_pretrained(path)
    model.double()
    data = batches(model.config)[0]
    inputs, mask = padded(model, data)
    out = model(**inputs, output_hidden_states=True)
    g = {f"a.{key}": value for key, value in data.items()}
    g |= {f"hidden.{i}": h[mask] for i, h in enumerate(out.hidden_states)}
    write(g | dict(pooled=out.pooler_output), path)


def family(path, config, seed, keep, **save):
    model = classifier(config, seed)
    model.save_pretrained(path, **save)
    golden(model, path, keep=["word_embeddings", "classifier", *keep])


NAMES = ["bert", "roberta", "distilbert", "mpnet", "bert-regression", "bert-sharded", "bert-base", "bert-f16", "bert-bf16", "bert-fused", "bert-svd"]


def write_all(out):
    torch.set_num_threads(1)
    transformers.utils.logging.disable_progress_bar()
    torch.manual_seed(0)
    for name in NAMES:
        (out / name).mkdir(parents=True)
    family(out / "bert", bert(), 10, ["layer.1.intermediate.dense", "position_embeddings", "pooler.dense"])
    family(out / "roberta", roberta(), 11, ["layer.1.intermediate.dense"])
    family(out / "distilbert", distilbert(), 12, ["layer.1.ffn.lin1"])
    family(out / "mpnet", mpnet(), 13, ["layer.1.intermediate.dense", "relative_attention_bias"])
    family(out / "bert-regression", bert(layers=1, num_labels=1), 14, [])
    # The same model in shards; its golden is bert-regression's.
    BertForSequenceClassification.from_pretrained(out / "bert-regression").save_pretrained(out / "bert-sharded", max_shard_size="20KB")
    base(out / "bert-base")
    half(out / "bert-f16", torch.float16)
    half(out / "bert-bf16", torch.bfloat16)
    fused(out / "bert-fused")
    svd(out / "bert-svd")


if __name__ == "__main__":
    main(write_all, ROOT / "model" / "testdata", NAMES)
