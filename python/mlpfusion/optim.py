"""What training fused MLPs asks of an optimizer (docs/method.md, "P in training").

Hidden unit k of a fused MLP stands for P_k units. With P kept AdamW moves it as it would
have moved each of them, and needs nothing. What else there is, follow adds to any optimizer
of torch, for plain parameters and for those that FSDP2 has sharded.
"""

from collections.abc import Iterable
from typing import Any

import torch
from torch.distributed.tensor import DTensor, Replicate, Shard, distribute_tensor
from transformers.pytorch_utils import Conv1D

from .modeling_mlpfusion import Factored


def param_groups(model: torch.nn.Module, lr: float, weight_decay: float) -> list[dict[str, Any]]:
    """The parameters of a model that are trained, for an optimizer: matrices with weight
    decay, biases, norms and relative position biases without."""
    decayed, others = list[torch.nn.Parameter](), list[torch.nn.Parameter]()
    for name, p in model.named_parameters():
        if p.requires_grad:
            (decayed if p.ndim > 1 and "relative_attention_bias" not in name else others).append(p)
    return [dict(params=decayed, lr=lr, weight_decay=weight_decay), dict(params=others, lr=lr, weight_decay=0.0)]


def fold(model: Any) -> None:
    """Multiplies P into the down projections, so that the model is one of plain transformers,
    and keeps it beside as the multiplier of their columns' steps, for AdamW to move them as
    it would with P. P is not saved any more."""
    for b in model.fused_blocks():
        if b.scale is None:
            continue
        if b.form.get("weights") or any(o.form.get("weights") == b.name for o in model.fused_blocks()):
            raise ValueError(f"{b.name}: expected matrices of its own, found some that another expert uses, with another P")
        down, p = b.matrices[-1], b.module.mlp_scale
        with torch.no_grad():
            down.weight.mul_(p[:, None] if isinstance(down, Conv1D) else p)
        down._forward_pre_hooks.clear()
        del b.module.mlp_scale
        b.module.register_buffer("mlp_folded", p, persistent=False)
    if getattr(model.config, "mlpfusion", None):
        model.config.mlpfusion["scale"] = "fold"


def over_cluster_sizes(model: Any) -> None:
    """Divides each fused unit's step by its P, with which SGD moves it as it would have moved
    the units it stands for. The steps are saved with the model, as ….mlp_step."""
    for b in model.fused_blocks():
        if b.scale is not None and not b.form.get("weights"):
            b.module.register_buffer("mlp_step", 1 / b.scale)


def follow(optimizer: Any, model: Any, clip: float = 0.0) -> Any:
    """Has an optimizer of torch treat a model's fused units as the units they stand for:

    - before a step the gradient is clipped to a norm of at most clip, 0 for no clipping, in
      which a fused unit's squared gradient counts 1/P_k; optimizer.grad_norm is that norm;
    - what the optimizer changes, weight decay apart, is multiplied by the unit's step
      multiplier, where the checkpoint has them (mlp_step) or P was folded;
    - weights that are masked stay zero.

    Returns the optimizer. Leave the clipping of others off."""
    before: dict[torch.Tensor, tuple[torch.Tensor, torch.Tensor]] = {}

    @torch.no_grad()
    def pre(optimizer: Any, args: Any, kwargs: Any) -> None:
        groups = [(p, g) for g in optimizer.param_groups for p in g["params"] if p.grad is not None]
        for p in masked(model):
            if p.grad is not None:
                p.grad.mul_(p != 0)
        known = units(model)
        if clip > 0:
            optimizer.grad_norm = norm([p for p, _ in groups], known)
            rate = (clip / (optimizer.grad_norm + 1e-6)).clamp(max=1.0)
            for p, _ in groups:
                p.grad.mul_(rate)
        before.clear()
        for p, g in groups:
            if p in known and (step := known[p].step) is not None:
                before[p] = (p * (1 - g["lr"] * g["weight_decay"]), known[p].along(p, step))

    @torch.no_grad()
    def post(optimizer: Any, args: Any, kwargs: Any) -> None:
        for p, (start, step) in before.items():
            p.copy_(start + step * (p - start))
        before.clear()

    optimizer.register_step_pre_hook(pre)
    optimizer.register_step_post_hook(post)
    return optimizer


class Units:
    """Along which dimension of a parameter the hidden units lie, the weight of each one's
    squared gradient in the norm, and the multiplier of its step; None for all 1."""

    def __init__(self, dim: int, norm: torch.Tensor | None, step: torch.Tensor | None) -> None:
        self.dim, self.norm, self.step = dim, norm, step

    def along(self, p: torch.Tensor, values: torch.Tensor) -> torch.Tensor:
        """The values as they multiply p elementwise."""
        values = values.repeat(p.shape[self.dim] // len(values))  # of gate and up in one matrix
        values = values.reshape([-1 if d == self.dim else 1 for d in range(p.ndim)])
        if isinstance(p, DTensor):
            places = [Replicate() if isinstance(s, Shard) and s.dim != self.dim else s for s in p.placements]
            return distribute_tensor(values.to(p.device), p.device_mesh, places, src_data_rank=None)
        return values.to(p.device)


def units(model: Any) -> dict[torch.Tensor, Units]:
    """The parameters that have fused units, and how."""
    found: dict[torch.Tensor, Units] = {}
    users: dict[str, list[Any]] = {}
    for b in model.fused_blocks():
        users.setdefault(b.form.get("weights") or b.name, []).append(b)
    for all in users.values():
        b = all[0]
        folded = getattr(b.module, "mlp_folded", None)
        p = b.scale if folded is None else folded
        if p is None and b.step is None or isinstance(b.matrices[-1], Factored):
            continue
        weight = None
        if p is not None:
            # Σ_e P_e / Σ_e P_e² over the experts that use the matrices; 1/P of one alone.
            sizes = [p] if folded is not None else [o.scale for o in all]
            weight = sum(sizes) / sum(s * s for s in sizes)
        for m in b.matrices:
            down = m is b.matrices[-1]
            if down and folded is not None:
                found[m.weight] = Units(0 if isinstance(m, Conv1D) else 1, folded, folded)
                continue
            found[m.weight] = Units(int(down != isinstance(m, Conv1D)), weight, b.step)
            if m.bias is not None and not down:
                found[m.bias] = Units(0, weight, b.step)
    return found


def masked(model: Any) -> list[torch.Tensor]:
    return [m.weight for b in model.fused_blocks() if b.form.get("masked") for m in b.matrices]


def norm(params: Iterable[Any], known: dict[torch.Tensor, Units]) -> torch.Tensor:
    """The norm of the whole gradient, a fused unit's weighed."""
    total: torch.Tensor | float = 0.0
    sharded: dict[Any, Any] = {}
    for p in params:
        square: Any = p.grad.float() ** 2
        if p in known and (weight := known[p].norm) is not None:
            square = square * known[p].along(p, weight)
        square = square.sum()
        if isinstance(square, DTensor):
            mesh = square.device_mesh
            sharded[mesh] = square if mesh not in sharded else sharded[mesh] + square
        else:
            total = total + square
    for square in sharded.values():
        total = total + square.full_tensor()
    return torch.as_tensor(total).sqrt()
