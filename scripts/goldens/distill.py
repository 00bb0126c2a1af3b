"""Writes the golden of distillation, nn/testdata/distill/losses.json: the loss that
mixes labels and a teacher's logits, and its gradient, by PyTorch.

    python scripts/goldens/distill.py [--check]
"""

import json

import torch
from torch.nn.functional import cross_entropy, kl_div, mse_loss

from common import ROOT, main

CASES = [(classes, weight, temperature) for classes in (1, 2, 5) for weight, temperature in ((0.5, 2.0), (1.0, 1.0), (0.3, 4.0))]


def case(classes, weight, temperature):
    g = torch.Generator().manual_seed(classes)
    logits, teacher = (3 * torch.randn(6, classes, generator=g, dtype=torch.float64) for _ in range(2))
    logits.requires_grad_(True)
    if classes == 1:
        labels = torch.randn(6, generator=g, dtype=torch.float64)
        hard, soft = mse_loss(logits[:, 0], labels), mse_loss(logits, teacher)
    else:
        labels = torch.arange(6) % classes
        hard = cross_entropy(logits, labels)
        soft = kl_div((logits / temperature).log_softmax(-1), (teacher / temperature).log_softmax(-1), log_target=True, reduction="batchmean")
        soft = soft * temperature**2
    loss = (1 - weight) * hard + weight * soft
    (grad,) = torch.autograd.grad(loss, logits)
    return dict(
        classes=classes, weight=weight, temperature=temperature, labels=labels.tolist(),
        logits=logits.flatten().tolist(), teacher=teacher.flatten().tolist(), loss=loss.item(), grad=grad.flatten().tolist(),
    )  # fmt: skip


def write(out):
    out.mkdir(parents=True, exist_ok=True)
    (out / "losses.json").write_text("[\n" + ",\n".join(json.dumps(case(*c)) for c in CASES) + "\n]\n")


if __name__ == "__main__":
    main(write, ROOT / "nn" / "testdata" / "distill")
