"""Writes model/testdata/autocast/distances.json: how far bfloat16 takes PyTorch's
own gradients. For each model: the distance of the gradients under
torch.autocast from the exact ones (golden.safetensors), relative to their norm,
of all parameters together and of the worst one; to three decimals, as another
CPU sums in another order. Ours, at bfloat16, may be no farther.

    python scripts/goldens/autocast.py [--check]
"""

import json

import torch
import transformers
from safetensors.torch import load_file
from transformers import AutoModelForSequenceClassification

from common import ROOT, main
from model import padded

MODELS = ["bert", "roberta", "distilbert"]


def distances(folder):
    golden = load_file(folder / "golden.safetensors")
    data = {key: golden[f"a.{key}"].long() for key in ("ids", "types", "offsets", "labels")}
    model = AutoModelForSequenceClassification.from_pretrained(folder, attn_implementation="eager").eval()
    inputs, _ = padded(model, data)
    with torch.autocast("cpu", torch.bfloat16):
        loss = model(**inputs, labels=data["labels"]).loss
    loss.backward()
    off = size = worst = 0
    for name, p in model.named_parameters():
        want = golden[f"grad.{name}"].double()
        d, norm = (p.grad - want).norm() ** 2, want.norm() ** 2
        off, size = off + d, size + norm
        if norm > 1e-12:  # a key's bias has no gradient but rounding
            worst = max(worst, (d / norm).sqrt().item())
    return dict(all=round((off / size).sqrt().item(), 3), worst=round(worst, 3))


def write_all(out):
    torch.set_num_threads(1)
    transformers.utils.logging.disable_progress_bar()
    found = {name: distances(ROOT / "model" / "testdata" / name) for name in MODELS}
    (out / "autocast").mkdir(parents=True)
    (out / "autocast" / "distances.json").write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main(write_all, ROOT / "model" / "testdata", ["autocast"])
