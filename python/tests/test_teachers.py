"""Distillation, layer-wise tuning and language modelling: the losses of the mlpfusion command
on the same checkpoints, all texts in each step, so that their order does not matter."""

import json
import shutil

import pytest
import torch
from safetensors.torch import load_file
from test_train import losses, start

STEPS = 4
PLAIN = ("--schedule", "constant", "--warmup", 0, "--lr", 1e-3)


def ours(processes, model, out, *flags):
    run = start(processes, model, out, "--epochs", STEPS, "--batch", 24, *PLAIN, *flags)
    said = run.communicate(timeout=540)[1]
    assert run.returncode == 0, said[-3000:]
    return losses(out)


def theirs(command, verb, *args):
    told = json.loads(command(verb, *args, "--epochs", STEPS, "--batch", 24, "--eval-every", 1, "--json"))
    assert len(told["points"]) == STEPS
    return [p["loss"] for p in told["points"]]


@pytest.fixture(scope="module")
def documents(tmp_path_factory):
    """24 documents of 9 words."""
    folder = tmp_path_factory.mktemp("documents")
    g = torch.Generator().manual_seed(1)
    texts = [" ".join(f"w{w}" for w in torch.randint(6, 60, (9,), generator=g).tolist()) for _ in range(24)]
    for name in ("train.txt", "dev.txt"):
        (folder / name).write_text("\n<|endoftext|>\n".join(texts) + "\n")
    return folder


@pytest.mark.parametrize("name,processes,flags", [("llama-classifier", 0, []), ("bert", 2, ["--fsdp"])])
def test_distillation(name, processes, flags, command, checkpoint, fused, texts, tmp_path):
    """The teacher is the original, fine-tuned."""
    data = ("--task", "text", "--data", texts)
    teacher = tmp_path / "teacher"
    command("train", checkpoint(name), teacher, *data, "--epochs", 2, "--batch", 8, "--lr", 1e-3)
    learn = (*data, "--teacher", teacher, "--distill-weight", 0.7, "--temperature", 3)
    wanted = theirs(command, "train", fused(name, "--ratio", 0.5), tmp_path / "go", *learn, *PLAIN)
    found = ours(processes, fused(name, "--ratio", 0.5), tmp_path / "ours", *learn, *flags)
    assert found == pytest.approx(wanted, abs=1e-4)
    assert wanted[-1] < wanted[0]


@pytest.mark.parametrize("name,processes,flags", [("bert", 0, []), ("gpt2-classifier", 2, []), ("llama-classifier", 2, ["--fsdp"])])
def test_layerwise(name, processes, flags, command, checkpoint, fused, texts, tmp_path):
    """Only compressed MLPs move, and the hidden states come nearer to the original's."""
    small = fused(name, "--ratio", 0.5)
    data = ("--task", "text", "--data", texts)
    wanted = theirs(command, "tune", checkpoint(name), small, tmp_path / "go", *data, "--lr", 1e-3)
    found = ours(processes, small, tmp_path / "ours", *data, "--layerwise", checkpoint(name), *flags)
    assert found == pytest.approx(wanted, rel=2e-4)
    assert wanted[-1] < wanted[0]
    before, after = load_file(small / "model.safetensors"), load_file(tmp_path / "ours" / "model.safetensors")
    moved = {n for n in before if n in after and not torch.equal(before[n], after[n])}
    assert moved and all(any(w in n for w in ("intermediate.", "output.dense", "mlp.")) and "attention" not in n for n in moved)
    told, config = ((f / "config.json").read_text() for f in (tmp_path / "ours", small))
    assert {k: v for k, v in json.loads(told).items() if "drop" in k} == {k: v for k, v in json.loads(config).items() if "drop" in k}


def test_language_model(command, checkpoint, documents, tmp_path):
    """Two processes, with a teacher and without."""
    folder = shutil.copytree(checkpoint("llama"), tmp_path / "llama")
    named = json.loads((folder / "tokenizer_config.json").read_text()) | dict(eos_token="[UNK]")
    (folder / "tokenizer_config.json").write_text(json.dumps(named))
    config = json.loads((folder / "config.json").read_text()) | dict(eos_token_id=1)
    (folder / "config.json").write_text(json.dumps(config))
    command("fuse", folder, tmp_path / "small", "--width", 24)
    data = ("--task", "lm", "--data", documents)
    for flags in ([], ["--teacher", folder]):
        wanted = theirs(command, "train", tmp_path / "small", tmp_path / f"go{len(flags)}", *data, *flags, *PLAIN)
        found = ours(2, tmp_path / "small", tmp_path / f"ours{len(flags)}", *data, *flags)
        assert found == pytest.approx(wanted, abs=1e-4)
        assert wanted[-1] < wanted[0]


@pytest.mark.parametrize(
    "flags,words",
    [
        (["--teacher", "bert", "--layerwise", "bert"], "expected one of --teacher and --layerwise"),
        (["--layerwise", "gpt2-classifier"], "expected"),
        (["--teacher", "bert", "--temperature", 0], "temperature above 0"),
    ],
)
def test_refused(flags, words, checkpoint, fused, texts, tmp_path):
    flags = [checkpoint(f) if f in ("bert", "gpt2-classifier") else f for f in flags]
    run = start(0, fused("bert", "--ratio", 0.5), tmp_path / "tuned", "--task", "text", "--data", texts, *flags)
    said = run.communicate(timeout=300)[1]
    assert run.returncode == 1 and words in said and "Traceback" not in said
