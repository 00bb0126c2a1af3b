"""The mlpfusion command, tiny checkpoints that it has fused, and texts for them."""

import json
import os
import pathlib
import shutil
import subprocess

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer, models, pre_tokenizers

ROOT = pathlib.Path(__file__).resolve().parents[2]
TESTDATA = ROOT / "model" / "testdata"
torch.set_num_threads(1)
transformers.utils.logging.disable_progress_bar()


@pytest.fixture(scope="session")
def command():
    """Runs the mlpfusion command and returns what it prints."""
    binary = os.environ.get("MLPFUSION_BIN", ROOT / "bin" / "mlpfusion")

    def run(*args, check=True):
        done = subprocess.run([binary, "--quiet", "--seed", "1", *map(str, args)], capture_output=True, text=True)
        assert not check or done.returncode == 0, done.stderr
        return done.stdout if check else done

    return run


def add_tokenizer(folder, size):
    """A tokenizer of size words: w0, w1 …"""
    words = ["[PAD]", "[UNK]", "positive", "negative", "text", ":"]
    vocab = {w: i for i, w in enumerate(words + [f"w{i}" for i in range(len(words), size)])}
    tok = Tokenizer(models.WordPiece(vocab, unk_token="[UNK]"))
    tok.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tok.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text(json.dumps(dict(tokenizer_class="PreTrainedTokenizerFast", pad_token="[PAD]", unk_token="[UNK]")))


def two_labels(folder):
    """Cuts a decoder's head for labels to two."""
    weights = load_file(folder / "model.safetensors")
    if "score.weight" in weights:
        config = json.loads((folder / "config.json").read_text())
        config |= dict(id2label={"0": "negative", "1": "positive"}, label2id=dict(negative=0, positive=1))
        (folder / "config.json").write_text(json.dumps(config))
        weights["score.weight"] = weights["score.weight"][:2].clone()
        save_file(weights, folder / "model.safetensors", {"format": "pt"})


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory):
    """A committed checkpoint with a tokenizer."""
    made = {}

    def get(name):
        if name not in made:
            folder = made[name] = tmp_path_factory.mktemp(name)
            for f in ("config.json", "model.safetensors"):
                shutil.copy(TESTDATA / name / f, folder)
            two_labels(folder)
            add_tokenizer(folder, json.loads((folder / "config.json").read_text())["vocab_size"])
        return made[name]

    return get


@pytest.fixture(scope="session")
def fused(command, checkpoint, tmp_path_factory):
    """A committed checkpoint as the command has fused it."""
    made = {}

    def get(name, *flags):
        if (name, flags) not in made:
            out = tmp_path_factory.mktemp("fused") / name
            command("fuse", checkpoint(name), out, *flags)
            made[name, flags] = out
        return made[name, flags]

    return get


@pytest.fixture(scope="session")
def texts(tmp_path_factory):
    """A folder of texts with labels: train.csv and dev.csv."""
    folder = tmp_path_factory.mktemp("texts")
    g = torch.Generator().manual_seed(0)
    rows = []
    for i in range(24):
        words = torch.randint(6, 60, (3 + i % 9,), generator=g).tolist()
        rows.append(" ".join(f"w{w}" for w in words) + "," + ("positive" if sum(words) % 2 else "negative"))
    for name in ("train.csv", "dev.csv"):
        (folder / name).write_text("\n".join(["text,label", *rows]) + "\n")
    return folder
