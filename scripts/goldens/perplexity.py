"""Writes the golden of windowed perplexities, train/testdata/perplexity.json: the loop
of transformers' guide to perplexity, over the tiny GPT-2 of model/testdata.

    python scripts/goldens/perplexity.py [--check]
"""

import json

import torch
from transformers import AutoModelForCausalLM

from common import ROOT, main


def measured(model, ids, length, stride):
    """Windows begin stride tokens apart; what an earlier one has predicted is context."""
    total, predicted, before = 0.0, 0, 0
    for begin in range(0, len(ids), stride):
        end = min(begin + length, len(ids))
        window = torch.tensor([ids[begin:end]])
        targets = window.clone()
        targets[:, : -(end - before)] = -100
        n = int((targets[:, 1:] != -100).sum())
        if n:
            with torch.no_grad():
                total += model(window, labels=targets).loss.item() * n
            predicted += n
        before = end
        if end == len(ids):
            break
    return dict(length=length, stride=stride, predicted=predicted, loss=total / predicted)


def write(out):
    out.mkdir(parents=True, exist_ok=True)
    model = AutoModelForCausalLM.from_pretrained(ROOT / "model" / "testdata" / "gpt2", dtype=torch.float64).eval()
    ids = torch.randint(0, model.config.vocab_size, (100,), generator=torch.Generator().manual_seed(5)).tolist()
    cases = [measured(model, ids, *c) for c in ((16, 16), (16, 5), (11, 1), (9, 9), (12, 12))]
    (out / "perplexity.json").write_text(json.dumps(dict(ids=ids, cases=cases), indent=1) + "\n")


if __name__ == "__main__":
    main(write, ROOT / "train" / "testdata", ["perplexity.json"])
