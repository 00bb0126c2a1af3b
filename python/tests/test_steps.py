"""Ten steps of the mlpfusion command and of PyTorch on one checkpoint and one batch: losses
within 1e-4, gradient norms, which weigh fused units, within 1e-4 of their size."""

import csv
import json
import shutil

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file

import mlpfusion

STEPS = 10


def theirs(command, folder, texts, out, lr, *flags):
    """Losses and gradient norms of the command, on all texts in each step."""
    told = command(
        "train", folder, out, "--task", "text", "--data", texts, "--epochs", STEPS, "--batch", 24, "--lr", lr,
        "--schedule", "constant", "--warmup", 0, "--eval-every", 1, "--json", *flags,
    )  # fmt: skip
    points = json.loads(told)["points"]
    assert len(points) == STEPS
    return [p["loss"] for p in points], [p["grad_norm"] for p in points]


def batch_of(folder, texts, written):
    tok = transformers.AutoTokenizer.from_pretrained(folder)
    rows = list(csv.DictReader(open(texts / "train.csv")))
    prompts = [("text text: " if written else "") + r["text"] for r in rows]
    batch = dict(tok(prompts, padding=True, return_tensors="pt"))
    batch.pop("token_type_ids", None)
    if not written:
        classes = sorted({r["label"] for r in rows})
        batch["labels"] = torch.tensor([classes.index(r["label"]) for r in rows])
    else:
        end = 1
        batch["labels"] = torch.tensor([[tok.convert_tokens_to_ids(r["label"]), end] for r in rows])
    return batch


def ours(model, batch, optimizer):
    model.train()
    for name, p in model.named_parameters():
        if "router" in name:
            p.requires_grad_(False)  # as the command does unless told
    losses, norms = [], []
    for _ in range(STEPS):
        optimizer.zero_grad()
        loss = model(**batch).loss
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
        norms.append(optimizer.grad_norm.item())
    return losses, norms


def adamw(model, lr=1e-3, eps=1e-6):
    groups = mlpfusion.param_groups(model, lr=lr, weight_decay=0.1)
    return mlpfusion.follow(torch.optim.AdamW(groups, betas=(0.9, 0.98), eps=eps), model, clip=1.0)


def near(found, wanted):
    (losses, norms), (want_losses, want_norms) = found, wanted
    assert losses == pytest.approx(want_losses, abs=1e-4, rel=0)
    assert norms == pytest.approx(want_norms, rel=1e-4)
    assert want_losses[-1] < want_losses[0] - 0.05  # it has learnt something


HALF = ("--ratio", 0.5)
CASES = {
    "bert": ("bert", HALF),
    "bert, svd": ("bert", (*HALF, "--method", "svd")),
    "bert, magnitude": ("bert", (*HALF, "--method", "magnitude")),
    "bert, uneven": ("bert", ("--budget", 0.4)),
    "distilbert": ("distilbert", HALF),
    "gpt2": ("gpt2-classifier", HALF),
    "llama": ("llama-classifier", HALF),
    "t5": ("t5", HALF),
    "t5, gated": ("t5-gated", HALF),
    "switch": ("switch", HALF),
    "switch, shared": ("switch", (*HALF, "--method", "shared")),
}


@pytest.mark.parametrize("case", CASES)
def test_adamw(case, command, fused, texts, tmp_path):
    name, flags = CASES[case]
    folder = fused(name, *flags)
    written = name.startswith(("t5", "switch"))
    wanted = theirs(command, folder, texts, tmp_path / "go", 1e-3, *(["--text-to-text"] if written else []))
    model = mlpfusion.from_pretrained(folder)
    near(ours(model, batch_of(folder, texts, written), adamw(model)), wanted)
    # What was trained here the command reads, and says the same of it.
    model.save_pretrained(tmp_path / "ours")
    for f in folder.glob("tokenizer*"):
        shutil.copy(f, tmp_path / "ours")
    for trained in ("go", "ours"):
        told = command("eval", tmp_path / trained, "--task", "text", "--data", texts, "--json", *(["--text-to-text"] if written else []))
        assert json.loads(told)


@pytest.mark.parametrize("name", ["bert", "gpt2-classifier", "llama-classifier"])
def test_folded(name, command, fused, texts, tmp_path):
    """P multiplied into the down projections, with step multipliers, follows P kept, but for
    Adam's eps, which P kept adds to a gradient that is P times as large."""
    folder = fused(name, *HALF)
    wanted = theirs(command, folder, texts, tmp_path / "go", 1e-3)
    model = mlpfusion.from_pretrained(folder)
    mlpfusion.fold(model)
    assert not any(n.endswith("mlp_scale") for n in model.state_dict())
    near(ours(model, batch_of(folder, texts, False), adamw(model)), wanted)


@pytest.mark.parametrize("name", ["bert", "gpt2-classifier", "llama-classifier", "switch"])
def test_sgd(name, command, fused, texts, tmp_path):
    """SGD with each unit's step divided by P, which the checkpoint says as mlp_step."""
    folder = fused(name, *HALF)
    written = name == "switch"
    model = mlpfusion.from_pretrained(folder)
    mlpfusion.over_cluster_sizes(model)
    stepped = tmp_path / "stepped"
    model.save_pretrained(stepped)
    for f in folder.glob("tokenizer*"):
        shutil.copy(f, stepped)
    wanted = theirs(command, stepped, texts, tmp_path / "go", 0.1, "--optimizer", "sgd", *(["--text-to-text"] if written else []))
    model = mlpfusion.from_pretrained(stepped)
    assert any(n.endswith("mlp_step") for n in model.state_dict())
    groups = mlpfusion.param_groups(model, lr=0.1, weight_decay=0)
    optimizer = mlpfusion.follow(torch.optim.SGD(groups), model, clip=1.0)
    near(ours(model, batch_of(stepped, texts, written), optimizer), wanted)


def test_step_multipliers(command, fused, texts, tmp_path):
    """Of AdamW's step, not of its decay."""
    folder = shutil.copytree(fused("bert", *HALF), tmp_path / "stepped")
    weights = load_file(folder / "model.safetensors")
    for name in [n for n in weights if n.endswith("mlp_scale")]:
        weights[name.replace("mlp_scale", "mlp_step")] = torch.linspace(0.1, 3, len(weights[name]))
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    wanted = theirs(command, folder, texts, tmp_path / "go", 1e-3)
    model = mlpfusion.from_pretrained(folder)
    near(ours(model, batch_of(folder, texts, False), adamw(model)), wanted)


def test_masked_stay_zero(fused, texts):
    folder = fused("bert", *HALF, "--method", "magnitude")
    model = mlpfusion.from_pretrained(folder)
    zeros = {m.weight: m.weight == 0 for b in model.fused_blocks() for m in b.matrices}
    assert sum(z.sum().item() for z in zeros.values()) > 100
    ours(model, batch_of(folder, texts, False), adamw(model))
    for weight, zero in zeros.items():
        assert (weight[zero] == 0).all() and (weight[~zero] != 0).all()
