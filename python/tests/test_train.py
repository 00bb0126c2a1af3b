"""Training on several processes: what two give is what one gives."""

import json
import os
import subprocess
import sys
import time

import psutil
import pytest
import torch
from conftest import ROOT
from safetensors.torch import load_file

HALF = ("--ratio", 0.5)


def start(processes, *args):
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}", "-m"] if processes else [sys.executable, "-m"]
    env = os.environ | dict(CUDA_VISIBLE_DEVICES="", OMP_NUM_THREADS="1")
    return subprocess.Popen([*launch, "mlpfusion.train", *map(str, args)], env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def train(processes, model, out, texts, *flags):
    """Trains and returns the losses of the steps."""
    run = start(processes, model, out, "--task", "text", "--data", texts, "--epochs", 4, "--batch", 8, "--lr", 1e-3, *flags)
    _, said = run.communicate(timeout=540)
    assert run.returncode == 0, said[-3000:]
    return losses(out)


def losses(out):
    states = sorted(out.with_name(out.name + ".train").glob("checkpoint-*/trainer_state.json"), key=lambda p: int(p.parent.name.split("-")[1]))
    return [p["loss"] for p in json.loads(states[-1].read_text())["log_history"] if "loss" in p]


@pytest.fixture(scope="module")
def alone(fused, texts, tmp_path_factory):
    out = tmp_path_factory.mktemp("alone") / "tuned"
    return train(0, fused("bert", *HALF), out, texts), out


@pytest.mark.parametrize("flags", [[], ["--fsdp"], ["--fsdp", "--gradient-checkpointing"]], ids=["ddp", "fsdp", "fsdp, checkpointing"])
def test_two_processes(flags, alone, fused, texts, command, tmp_path):
    """The losses of one process, weights that one process loads, and the command too."""
    wanted, one = alone
    assert len(wanted) == 12 and wanted[-1] < wanted[0]
    found = train(2, fused("bert", *HALF), tmp_path / "tuned", texts, *flags)
    assert found == pytest.approx(wanted, abs=1e-4)
    a, b = load_file(one / "model.safetensors"), load_file(tmp_path / "tuned" / "model.safetensors")
    assert a.keys() == b.keys() and any(n.endswith("mlp_scale") for n in a)
    for name in a:
        torch.testing.assert_close(a[name], b[name], atol=2e-3, rtol=0, msg=name)
    told = [json.loads(command("eval", f, "--task", "text", "--data", texts, "--json")) for f in (one, tmp_path / "tuned")]
    assert [t["metrics"] for t in told[0]] == [t["metrics"] for t in told[1]]


@pytest.mark.parametrize("flags", [[], ["--fsdp"]], ids=["ddp", "fsdp"])
def test_killed(flags, alone, fused, texts, tmp_path):
    """Killed when it has kept something, it goes on, on another number of processes."""
    wanted, _ = alone
    out = tmp_path / "tuned"
    args = [fused("bert", *HALF), out, "--task", "text", "--data", texts, "--epochs", 4, "--batch", 8, "--lr", 1e-3, *flags]
    run = start(2, *args)
    work = out.with_name("tuned.train")
    end = time.time() + 300
    while not list(work.glob("checkpoint-*/trainer_state.json")) and run.poll() is None and time.time() < end:
        time.sleep(0.05)
    for p in [psutil.Process(run.pid), *psutil.Process(run.pid).children(recursive=True)]:
        p.kill()
    run.communicate()
    assert not out.exists()
    refused = start(0, *[a for a in args if a != "--fsdp"])
    assert "expected no earlier run" in refused.communicate()[1] and refused.returncode == 1
    found = train(1, args[0], out, texts, "--resume", *flags)
    assert found == pytest.approx(wanted, abs=1e-4)


@pytest.mark.parametrize("name", ["bert"])
def test_bf16(name, alone, fused, texts, tmp_path):
    wanted, _ = alone
    found = train(0, fused(name, *HALF), tmp_path / "tuned", texts, "--precision", "bf16")
    # A product's operands are rounded by 2^-9; three layers and a loss of size 1.
    assert found[:3] == pytest.approx(wanted[:3], abs=0.05)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device here")
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_cuda(precision, alone, fused, texts, tmp_path):
    wanted, _ = alone
    run = subprocess.run([sys.executable, "-m", "mlpfusion.train", *map(str, [fused("bert", *HALF), tmp_path / "tuned", "--task", "text", "--data", texts, "--epochs", 4, "--batch", 8, "--lr", 1e-3, "--precision", precision])], capture_output=True, text=True)
    assert run.returncode == 0, run.stderr[-3000:]
    assert losses(tmp_path / "tuned")[:3] == pytest.approx(wanted[:3], abs=1e-3 if precision == "fp32" else 0.05)


@pytest.mark.parametrize(
    "processes,flags,words",
    [
        (2, ["--batch", 7], "batch: expected a multiple of 2 processes times 1 passes, found 7"),
        (0, ["--label", "verdict"], "expected a column 'verdict', found 'text', 'label'"),
        (0, ["--fsdp"], "fsdp: expected to be started by torchrun"),
    ],
)
def test_refused(processes, flags, words, fused, texts, tmp_path):
    run = start(processes, fused("bert", *HALF), tmp_path / "tuned", "--task", "text", "--data", texts, *flags)
    _, said = run.communicate(timeout=300)
    assert run.returncode == 1 and words in said and "Traceback" not in said.split("mlpfusion.train:")[0]


EXAMPLES = ROOT / "python" / "examples"
ONE, TWO = [sys.executable], [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]


def example(launch, *args):
    """Runs an example as its first lines say, on the CPU, and returns what it prints."""
    binary = os.environ.get("MLPFUSION_BIN", ROOT / "bin" / "mlpfusion")
    env = os.environ | dict(CUDA_VISIBLE_DEVICES="", OMP_NUM_THREADS="1", ACCELERATE_USE_CPU="true", MLPFUSION_BIN=str(binary))
    run = subprocess.run([*launch, *map(str, args)], env=env, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr[-3000:]
    return run.stdout


def test_accelerate_example(fused, texts, command, tmp_path):
    """The loop on accelerate, sharded over two processes."""
    launch = [sys.executable, "-m", "accelerate.commands.launch", "--config-file", EXAMPLES / "fsdp2.yaml", "--cpu"]
    assert "epoch 3: loss" in example(launch, EXAMPLES / "accelerate_loop.py", fused("bert", *HALF), texts, tmp_path / "tuned")
    assert any(n.endswith("mlp_scale") for n in load_file(tmp_path / "tuned" / "model.safetensors"))
    command("eval", tmp_path / "tuned", "--task", "text", "--data", texts)


def test_trainer_example(checkpoint, texts, command, tmp_path):
    assert "'eval_accuracy'" in example(ONE, EXAMPLES / "trainer.py", checkpoint("bert"), texts, tmp_path)
    command("eval", tmp_path / "tuned", "--task", "text", "--data", texts)


def test_fsdp2_example(fused, texts, command, tmp_path):
    """On two processes as on one."""
    said = [example([*TWO[:-1], f"--nproc-per-node={n}"], EXAMPLES / "fsdp2.py", fused("bert", *HALF), texts, tmp_path / str(n)) for n in (1, 2)]
    assert all("epoch 2: loss" in s for s in said)
    assert any(n.endswith("mlp_scale") for n in load_file(tmp_path / "2" / "model.safetensors"))
    command("eval", tmp_path / "2", "--task", "text", "--data", texts)


def test_sentences_example(checkpoint, texts, tmp_path):
    sentences = pytest.importorskip("sentence_transformers", reason="no sentence-transformers here: make test-python installs it")
    from sentence_transformers import models

    parts = [models.Transformer(str(checkpoint("bert"))), models.Pooling(32)]
    sentences.SentenceTransformer(modules=parts, device="cpu").save(str(tmp_path / "model"))
    lines = [line.split(",")[0] for line in (texts / "train.csv").read_text().splitlines()[1:]]
    (tmp_path / "lines").write_text("\n".join(lines))
    said = example(ONE, EXAMPLES / "sentences.py", tmp_path / "model", tmp_path / "lines", tmp_path / "out")
    first, second = (float(line.split()[-1]) for line in said.splitlines()[:2])
    assert second < first and "cosines with the original's" in said
