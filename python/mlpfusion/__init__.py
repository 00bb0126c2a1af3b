"""Transformers that mlpfusion has made smaller, in PyTorch: loading, saving, training.

    model = mlpfusion.from_pretrained("small")
    optimizer = torch.optim.AdamW(mlpfusion.param_groups(model, lr=2e-5, weight_decay=0.1))
    mlpfusion.follow(optimizer, model, clip=1.0)
"""

from .loading import from_pretrained
from .optim import fold, follow, over_cluster_sizes, param_groups
from .version import __version__

__all__ = ["__version__", "fold", "follow", "from_pretrained", "over_cluster_sizes", "param_groups"]
