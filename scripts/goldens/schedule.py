"""Writes the golden of the learning-rate schedules, train/testdata/schedule.json:
the factors of transformers' own schedules at every step.

    python scripts/goldens/schedule.py [--check]
"""

import json

import torch
from transformers import get_scheduler

from common import ROOT, main

CASES = [(name, warmup, total) for name in ("linear", "cosine", "constant_with_warmup") for warmup, total in ((0, 7), (3, 20), (5, 5), (1, 1))]


def factors(name, warmup, total):
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
    schedule = get_scheduler(name, optimizer, num_warmup_steps=warmup, num_training_steps=total)
    values = []
    for _ in range(total):
        values.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    return values


def write(out):
    out.mkdir(parents=True, exist_ok=True)
    cases = [dict(schedule=n.removesuffix("_with_warmup"), warmup=w, total=t, factors=factors(n, w, t)) for n, w, t in CASES]
    (out / "schedule.json").write_text("[\n" + ",\n".join(json.dumps(c) for c in cases) + "\n]\n")


if __name__ == "__main__":
    main(write, ROOT / "train" / "testdata")
