"""What a model learns from another: its logits, or the hidden states of its layers."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.fsdp import fully_shard
from torch.nn import functional as F


def distillation(logits: Tensor, theirs: Tensor, labels: Tensor, weight: float, temperature: float) -> tuple[Tensor, Tensor]:
    """The loss of fine-tuning with a teacher, as the sum over rows and their number: of the
    labels' loss the share 1 - weight, of the teacher's the share weight, which is T² times the
    divergence of the softmax of logits/T from the teacher's. One logit a row is regression,
    and the difference from the teacher's is squared. Labels of -100 are left out."""
    if logits.shape[-1] == 1:
        said, wanted = logits[:, 0].float(), theirs[:, 0].float()
        loss = (1 - weight) * (said - labels.float()) ** 2 + weight * (said - wanted) ** 2
        return loss.sum(), torch.tensor(len(labels), device=logits.device)
    rows = labels != -100
    said, wanted, labels = logits[rows].float(), theirs[rows].float(), labels[rows]
    own = F.cross_entropy(said, labels, reduction="sum")
    soft = F.kl_div(F.log_softmax(said / temperature, -1), F.log_softmax(wanted / temperature, -1), reduction="sum", log_target=True)
    return (1 - weight) * own + weight * temperature**2 * soft, rows.sum()


def next_tokens(logits: Tensor, theirs: Tensor, labels: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The rows of a language model: each token's logits beside the token that follows it."""
    return logits[:, :-1].flatten(0, 1), theirs[:, :-1].flatten(0, 1), labels[:, 1:].flatten()


def layers(model: nn.Module) -> list[nn.ModuleList]:
    """The lists of a model's layers: one of an encoder or a decoder, two of both."""
    lists = {n: m for n, m in model.named_modules() if isinstance(m, nn.ModuleList)}
    return [m for n, m in lists.items() if not any(n.startswith(other + ".") for other in lists)]


PLAIN_STREAM = {"bert", "roberta", "distilbert", "olmo2"}  # families whose MLPs read the stream as it is


def distance(ours: tuple[Tensor, ...], theirs: tuple[Tensor, ...], mask: Tensor, family: str) -> tuple[Tensor, Tensor]:
    """The loss of layer-wise tuning, as the sum over tokens and their number: the squared
    difference of what each layer gives, summed over the hidden size, its mean over layers.
    Where layers normalise the stream first, a token's is divided by the mean square of the
    teacher's state, as the norm will do."""
    real = mask.bool()
    sums = []
    for a, b in zip(ours[1:], theirs[1:], strict=True):
        a, b = a[real].float(), b[real].float()
        squares = ((a - b) ** 2).sum(-1)
        if family not in PLAIN_STREAM:
            squares = squares / b.square().mean(-1).clamp_min(1e-12 / b.shape[-1])
        sums.append(squares.sum())
    return torch.stack(sums).mean(), real.sum()


def only_fused(model: Any) -> None:
    """Freezes all but the fused MLPs' matrices."""
    if model.config.is_encoder_decoder:
        raise ValueError(f"layerwise: expected an encoder or a decoder, found {type(model).__name__}, which is both")
    trained = {id(p) for b in model.fused_blocks() for m in b.matrices for p in m.parameters()}
    if not trained:
        raise ValueError("layerwise: expected a compressed model, found no compressed MLP")
    for p in model.parameters():
        p.requires_grad_(id(p) in trained)


def without_dropout(config: Any) -> dict[str, float]:
    """The arguments of from_pretrained by which a model has no dropout."""
    return {k: 0.0 for k, v in config.to_dict().items() if ("dropout" in k or k.endswith("pdrop")) and isinstance(v, float)}


def frozen(teacher: nn.Module, sharded: bool) -> nn.Module:
    """A teacher, ready to be asked; sharded over the processes as its student is."""
    teacher.eval().requires_grad_(False)
    if sharded:
        for layer in (layer for stack in layers(teacher) for layer in stack):
            fully_shard(layer)
        fully_shard(teacher)
    return teacher
