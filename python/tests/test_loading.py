"""Loading, saving and the remote code, on the checkpoints of the Go side's tests and on what
the command makes of them."""

import copy
import json
import os
import platform
import shutil
import subprocess
import sys
import venv

import pytest
import torch
import transformers
from conftest import ROOT, TESTDATA
from safetensors.torch import load_file

import mlpfusion

COMMITTED = sorted(p.parent.name for p in TESTDATA.glob("*/model.safetensors"))
HALF = ("--ratio", 0.5)
MADE = [
    *((name, HALF) for name in ("roberta", "distilbert", "gpt2", "t5", "switch", "llama", "gemma3", "phi3")),
    *((name, HALF) for name in ("mixtral", "qwen2-moe", "qwen3-moe", "olmoe", "granitemoe", "deepseek-v3")),
    *((name, (*HALF, "--method", "svd")) for name in ("gpt2", "t5-gated", "switch", "phi3", "mixtral", "qwen2-moe")),
    ("bert", ("--budget", 0.4)),
    ("bert", ("--layers", "1-2", "--width", 20)),
    ("llama", (*HALF, "--method", "magnitude")),
    ("switch", (*HALF, "--method", "shared")),
    ("qwen3-moe", (*HALF, "--method", "shared")),
    ("granitemoe", (*HALF, "--layers", "1")),
    ("t5-label", HALF),
]


def tensors(folder):
    found = {}
    for file in folder.glob("model*.safetensors"):
        found |= load_file(file)
    return found


def same(before, after):
    assert before.keys() == after.keys()
    for name, value in before.items():
        assert value.dtype == after[name].dtype and torch.equal(value, after[name]), name


def known(name):
    if "Switch" in (a := json.loads((TESTDATA / name / "config.json").read_text())["architectures"][0]) and "Classification" in a:
        pytest.skip("transformers has no Switch Transformers with a label head")


@pytest.mark.parametrize("name", COMMITTED)
def test_committed(name, tmp_path):
    known(name)
    mlpfusion.from_pretrained(TESTDATA / name).save_pretrained(tmp_path)
    same(tensors(TESTDATA / name), tensors(tmp_path))


@pytest.mark.parametrize("name,flags", MADE, ids=lambda x: " ".join(map(str, x)) if isinstance(x, tuple) else x)
def test_made(name, flags, fused, command, tmp_path):
    """The same bytes back, and the command reads them."""
    folder = fused(name, *flags)
    model = mlpfusion.from_pretrained(folder)
    model.save_pretrained(tmp_path / "saved")
    same(tensors(folder), tensors(tmp_path / "saved"))
    counts = [json.loads(command("inspect", f, "--json"))["parameters"] for f in (folder, tmp_path / "saved")]
    # The command counts no weight that magnitude has made zero.
    assert counts == [sum((p != 0).sum().item() if "magnitude" in flags and p.ndim > 1 else p.numel() for p in model.parameters())] * 2


@pytest.mark.parametrize("name", [n for n in COMMITTED if n.endswith(("-fused", "-svd", "-nas"))])
def test_logits(name):
    """What PyTorch alone computed when the goldens were made."""
    known(name)
    golden = load_file(TESTDATA / name / "golden.safetensors")
    model = mlpfusion.from_pretrained(TESTDATA / name, attn_implementation="eager")
    rows, at = [], golden["a.offsets"].tolist()
    decoder = golden.get("a.decoder_offsets", golden["a.offsets"]).tolist()
    for i in range(len(at) - 1):
        inputs = dict(input_ids=golden["a.ids"][at[i] : at[i + 1]][None].long())
        if "a.types" in golden and model.config.model_type == "bert":
            inputs["token_type_ids"] = golden["a.types"][at[i] : at[i + 1]][None].long()
        if "a.decoder_ids" in golden:
            inputs["decoder_input_ids"] = golden["a.decoder_ids"][decoder[i] : decoder[i + 1]][None].long()
        with torch.no_grad():
            rows.append(model(**inputs).logits.flatten(0, -2))
    torch.testing.assert_close(torch.cat(rows), golden["logits"].reshape(-1, rows[0].shape[-1]).float(), atol=1e-4, rtol=0)


AUTO = {
    "bert": ("AutoModelForSequenceClassification", HALF),
    "gpt2": ("AutoModelForCausalLM", HALF),
    "llama": ("AutoModelForCausalLM", (*HALF, "--method", "svd")),
    "switch": ("AutoModelForSeq2SeqLM", (*HALF, "--method", "shared")),
    "mixtral": ("AutoModelForCausalLM", HALF),
    "distilbert": ("AutoModel", HALF),
}
REMOTE = """
import sys, torch, transformers
auto, folder, out = sys.argv[1:]
model = getattr(transformers, auto).from_pretrained(folder, trust_remote_code=True)
ids = torch.arange(10, 22).reshape(2, 6)
more = dict(decoder_input_ids=ids) if model.config.is_encoder_decoder else {}
with torch.no_grad():
    torch.save(model(input_ids=ids, **more)[0], out + ".pt")
model.save_pretrained(out)
"""


@pytest.mark.parametrize("name", AUTO)
def test_remote_code(name, fused, command, tmp_path):
    """Plain transformers, which does not know this package, with the file beside the
    checkpoint; and again with what it saved."""
    auto, flags = AUTO[name]
    folder = fused(name, *flags)
    command("export", folder, tmp_path / "code", "--remote-code")
    same(tensors(folder), tensors(tmp_path / "code"))
    env = dict(HF_MODULES_CACHE=str(tmp_path / "modules"), HF_HUB_OFFLINE="1", OMP_NUM_THREADS="1", PATH="")
    for source, out in (("code", "once"), ("once", "twice")):
        subprocess.run([sys.executable, "-c", REMOTE, auto, tmp_path / source, tmp_path / out], env=env, check=True)
    same(tensors(tmp_path / "once"), tensors(tmp_path / "twice"))
    if auto != "AutoModel":
        same(tensors(folder), tensors(tmp_path / "once"))
    model = mlpfusion.from_pretrained(folder, auto=getattr(transformers, auto))
    ids = torch.arange(10, 22).reshape(2, 6)
    more = dict(decoder_input_ids=ids) if model.config.is_encoder_decoder else {}
    with torch.no_grad():
        wanted = model(input_ids=ids, **more)[0]
    for out in ("once", "twice"):
        assert torch.equal(torch.load(tmp_path / f"{out}.pt"), wanted)
    command("inspect", tmp_path / "once")


def test_nemotron(fused, command, tmp_path):
    """A Llama with a width for each layer, as others read it: by this package, and by plain
    transformers, which saves it again."""
    folder = fused("llama-3", *HALF, "--layers", "1-2")
    command("export", folder, tmp_path / "served", "--nemotron-nas", "--pad")
    env = dict(HF_MODULES_CACHE=str(tmp_path / "modules"), HF_HUB_OFFLINE="1", OMP_NUM_THREADS="1", PATH="")
    for source, out in (("served", "once"), ("once", "twice")):
        subprocess.run([sys.executable, "-c", REMOTE, "AutoModelForCausalLM", tmp_path / source, tmp_path / out], env=env, check=True)
    same(tensors(tmp_path / "served"), tensors(tmp_path / "twice"))
    ids = torch.arange(10, 22).reshape(2, 6)
    with torch.no_grad():
        wanted, found = (mlpfusion.from_pretrained(f)(input_ids=ids).logits for f in (folder, tmp_path / "twice"))
    for logits in (found, torch.load(tmp_path / "once.pt"), torch.load(tmp_path / "twice.pt")):
        torch.testing.assert_close(logits, wanted, atol=1e-5, rtol=0)
    was, again = (json.loads(command("inspect", tmp_path / f, "--json"))["parameters"] for f in ("served", "twice"))
    assert was == again


@pytest.mark.parametrize(
    "change",
    [
        lambda b: b["attention"].update(n_heads_in_group=None),
        lambda b: b["attention"].update(no_op=True),
        lambda b: b["ffn"].update(replace_with_linear=True),
    ],
)
def test_no_nemotron(change, command, tmp_path):
    """Layers that are no Llama's: refused by name on both sides."""
    folder = changed(TESTDATA / "nemotron-nas", tmp_path / "wrong", lambda c: change(c["block_configs"][1]))
    with pytest.raises(ValueError, match="config.json: block_configs: expected attention with n_heads_in_group and an MLP in every layer"):
        mlpfusion.from_pretrained(folder)
    assert "config.json: block_configs: 1: " in command("inspect", folder, check=False).stderr


def test_without_head(fused):
    whole = mlpfusion.from_pretrained(fused("bert", *HALF))
    alone = mlpfusion.from_pretrained(fused("bert", *HALF), auto=transformers.AutoModel)
    assert type(alone).__name__ == "BertModel" and len(alone.fused_blocks()) == 3
    ids = torch.arange(10, 22).reshape(2, 6)
    assert torch.equal(alone(ids)[0], whole.bert(ids)[0])


def test_copies_and_types(fused):
    """A copy reads its own P; P stays float32 when a model is cast."""
    model = mlpfusion.from_pretrained(fused("bert", *HALF))
    ids = torch.arange(10, 22).reshape(2, 6)
    other = copy.deepcopy(model)
    before = model(ids).logits
    for b in other.fused_blocks():
        b.scale.fill_(257)
    assert torch.equal(model(ids).logits, before) and not torch.equal(other(ids).logits, before)
    other.to(torch.bfloat16)
    assert all((b.scale == 257).all() and b.scale.dtype == torch.float32 for b in other.fused_blocks())
    assert other(ids).logits.dtype == torch.bfloat16
    narrow = mlpfusion.from_pretrained(fused("bert", *HALF), dtype=torch.bfloat16)
    for a, b in zip(model.fused_blocks(), narrow.fused_blocks()):
        assert b.scale.dtype == torch.float32 and torch.equal(a.scale, b.scale) and b.matrices[0].weight.dtype == torch.bfloat16


def changed(folder, to, change):
    shutil.copytree(folder, to)
    config = json.loads((to / "config.json").read_text())
    change(config)
    (to / "config.json").write_text(json.dumps(config))
    return to


@pytest.mark.parametrize(
    "change,words",
    [
        (lambda c: c["mlpfusion"].update(version=2), "expected version 1 or older, found 2: a newer mlpfusion wrote it"),
        (lambda c: c.update(mlpfusion=7), "expected an object with a version and layers, found 7"),
        (lambda c: c["mlpfusion"]["layers"].update({"bert.encoder.layer.9": {"width": 4}}), "expected MLPs that BertForSequenceClassification has"),
        (lambda c: c.update(model_type="nosuch"), "model_type: expected a family that transformers .* has, found 'nosuch'"),
        (lambda c: c.update(architectures=["NoSuchClass"]), "architectures: expected a class of transformers, found 'NoSuchClass'"),
    ],
)
def test_wrong_config(change, words, fused, tmp_path):
    with pytest.raises(ValueError, match="config.json: .*" + words):
        mlpfusion.from_pretrained(changed(fused("bert", *HALF), tmp_path / "wrong", change))


def test_int8(fused, command, tmp_path):
    """Refused by name; the remote-code form of it is float32, for the command the same."""
    folder = fused("bert", *HALF, "--store", "int8")
    with pytest.raises(ValueError, match="expected matrices of floats, found .*weight_scale"):
        mlpfusion.from_pretrained(folder)
    command("export", folder, tmp_path / "code", "--remote-code")
    model = mlpfusion.from_pretrained(tmp_path / "code")
    stored = tensors(folder)
    name = "bert.encoder.layer.0.intermediate.dense.weight"
    assert torch.equal(model.get_parameter(name), stored[name] * stored[name + "_scale"][:, None])


def test_wheel(tmp_path):
    """The wheel of this platform, twice the same bytes, gives an empty environment the command."""
    if (sys.platform, platform.machine()) != ("linux", "x86_64"):
        pytest.skip("the wheel that is tested is linux/amd64's")
    binary = os.environ.get("MLPFUSION_BIN", ROOT / "bin" / "mlpfusion")
    wheels = []
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        subprocess.run([sys.executable, ROOT / "python" / "wheel.py", "linux/amd64", binary, tmp_path / name], check=True)
        wheels += (tmp_path / name).iterdir()
    assert wheels[0].name == wheels[1].name and wheels[0].read_bytes() == wheels[1].read_bytes()
    venv.create(tmp_path / "empty", with_pip=True)
    bin = tmp_path / "empty" / "bin"
    subprocess.run([bin / "python", "-m", "pip", "install", "--quiet", "--no-index", wheels[0]], check=True, env={})
    assert "mlpfusion" in subprocess.run([bin / "mlpfusion", "--version"], check=True, capture_output=True, text=True, env={}).stdout
    # The demo, whose model and reviews `make test-python` has fetched.
    env = {name: os.environ[name] for name in ("HOME", "XDG_CACHE_HOME") if name in os.environ}
    demo = subprocess.run([bin / "mlpfusion", "demo"], capture_output=True, text=True, env=env | dict(PATH=str(bin)))
    assert demo.returncode == 0, demo.stderr
    assert "accuracy" in demo.stdout + demo.stderr


@pytest.mark.parametrize("name", ["mixtral", "qwen2-moe", "qwen3-moe", "olmoe", "granitemoe", "deepseek-v3"])
def test_experts(name, fused, command, tmp_path):
    """Experts that are fused give what the exported ones give in plain transformers."""
    folder = fused(name, *HALF)
    command("export", folder, tmp_path / "plain")
    # Transformers' fastest way with stacks wants widths of a multiple of 4.
    plain = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "plain", experts_implementation="eager")
    ids = torch.arange(10, 22).reshape(2, 6)
    with torch.no_grad():
        torch.testing.assert_close(mlpfusion.from_pretrained(folder)(input_ids=ids).logits, plain(input_ids=ids).logits, atol=1e-4, rtol=0)
