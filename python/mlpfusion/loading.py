"""Loading what the mlpfusion command writes."""

import os
from typing import Any

import transformers

from . import modeling_mlpfusion
from .modeling_mlpfusion import DeciLMConfig, fused

transformers.AutoConfig.register(DeciLMConfig.model_type, DeciLMConfig, exist_ok=True)
for auto, name in (("AutoModelForCausalLM", "DeciLMForCausalLM"), ("AutoModel", "DeciLMModel")):
    getattr(transformers, auto).register(DeciLMConfig, getattr(modeling_mlpfusion, name), exist_ok=True)


def configuration(directory: str | os.PathLike[str]) -> Any:
    """Reads config.json as the class of transformers that its family has."""
    family = transformers.PreTrainedConfig.get_config_dict(directory)[0].get("model_type")
    if family not in transformers.CONFIG_MAPPING:
        raise ValueError(f"{directory}: config.json: model_type: expected a family that transformers {transformers.__version__} has, found {family!r}")
    return transformers.AutoConfig.from_pretrained(directory)


def from_pretrained(directory: str | os.PathLike[str], auto: Any = None, **kwargs: Any) -> Any:
    """Loads a checkpoint, compressed or not, as the class of transformers that its
    config.json names, or as that which an auto class such as
    transformers.AutoModelForSequenceClassification chooses. Other arguments are
    from_pretrained's. The model's save_pretrained writes what the mlpfusion command reads."""
    config = configuration(directory)
    if auto is not None:
        if type(config) not in auto._model_mapping:
            raise ValueError(f"{directory}: config.json: model_type: expected one that {auto.__name__} has a class for, found {config.model_type!r}")
        stock = auto._model_mapping[type(config)]
    else:
        name = (config.architectures or [None])[0]
        stock = getattr(transformers, name or "", None) or getattr(modeling_mlpfusion, name or "", None)
        if stock is None:
            raise ValueError(f"{directory}: config.json: architectures: expected a class of transformers, found {name!r}: choose with auto=transformers.AutoModelFor…")
    return fused(stock).from_pretrained(directory, **kwargs)
