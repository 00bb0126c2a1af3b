"""Transformers that mlpfusion has made smaller, in PyTorch: making, loading, saving, training.

    mlpfusion.fuse("bert-base-uncased", "small", ratio=0.25)
    model = mlpfusion.from_pretrained("small")
    optimizer = torch.optim.AdamW(mlpfusion.param_groups(model, lr=2e-5, weight_decay=0.1))
    mlpfusion.follow(optimizer, model, clip=1.0)

The command's own, fuse, export and inspect, need neither torch nor transformers.
"""

import importlib
from typing import TYPE_CHECKING, Any

from .command import CommandError, export, fuse, inspect
from .version import __version__

if TYPE_CHECKING:
    from .loading import from_pretrained
    from .optim import fold, follow, over_cluster_sizes, param_groups

__all__ = ["CommandError", "__version__", "export", "fold", "follow", "from_pretrained", "fuse", "inspect", "over_cluster_sizes", "param_groups"]


def __getattr__(name: str) -> Any:
    """What needs torch is read when it is first asked for."""
    for module in () if name.startswith("_") else (".loading", ".optim"):
        found = importlib.import_module(module, __name__)
        if name in __all__ and hasattr(found, name):
            return getattr(found, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
