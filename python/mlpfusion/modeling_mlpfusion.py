"""Models that mlpfusion has made smaller, as classes of transformers.

This file needs torch and transformers and nothing else: `mlpfusion export --remote-code`
lays it beside a checkpoint, so that AutoModel….from_pretrained(DIR, trust_remote_code=True)
reads it. Any class of transformers is found here under its own name, its MLPs having the
forms that the block "mlpfusion" of config.json states:

    width      this many hidden units
    rank       each matrix is two factors, weight = factor_u · factor_v (svd)
    weights    the block, an expert before this one, whose matrices this one uses
    masked     weights that are zero stay so in training (mlpfusion.follow sees to it)

and beside a block's matrices, where the checkpoint has them, two persistent buffers:

    mlp_scale  P (width), which multiplies what the down projection reads
    mlp_step   a multiplier of each hidden unit's step in training (width)
"""

import functools
import json
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import torch
import transformers
from safetensors import safe_open
from torch import nn
from torch.nn import functional as F
from transformers.conversion_mapping import get_checkpoint_conversion_mapping
from transformers.core_model_loading import WeightRenaming
from transformers.pytorch_utils import Conv1D
from transformers.utils import cached_file

VERSION = 1  # the newest of the block "mlpfusion" that is understood

# Where the matrices of an MLP are within its block: those that make the hidden units, and
# last the one that reads them. A family that names them otherwise needs a line here.
LAYOUTS = (
    ("intermediate.dense", "output.dense"),  # BERT, RoBERTa, MPNet
    ("lin1", "lin2"),  # DistilBERT
    ("c_fc", "c_proj"),  # GPT-2
    ("wi_0", "wi_1", "wo"),  # T5 v1.1
    ("wi", "wo"),  # T5, Switch Transformers
    ("gate_proj", "up_proj", "down_proj"),  # Llama and its kin
    ("w1", "w3", "w2"),  # experts of Mixtral
    ("gate_up_proj", "down_proj"),  # Phi 3
)
HALVES = {"gate_up_proj": ("gate_proj", "up_proj")}  # a matrix that is two, gate upon up


class Factored(nn.Module):
    """A matrix kept as two of lower rank: y = factor_u · (factor_v · x) + bias."""

    def __init__(self, inputs: int, rank: int, outputs: int, bias: bool) -> None:
        super().__init__()
        self.factor_v = nn.Parameter(torch.empty(rank, inputs))
        self.factor_u = nn.Parameter(torch.empty(outputs, rank))
        self.bias = nn.Parameter(torch.zeros(outputs)) if bias else None
        nn.init.normal_(self.factor_v, std=0.02)
        nn.init.normal_(self.factor_u, std=0.02)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return F.linear(F.linear(x, self.factor_v), self.factor_u, self.bias)


class Expert(nn.Module):
    """A gated MLP that transformers keeps in a layer's stacks."""

    def __init__(self, names: tuple[str, ...], inputs: int, width: int, act: nn.Module) -> None:
        super().__init__()
        self.names, self.act_fn = names, act
        for name in names[:-1]:
            setattr(self, name, nn.Linear(inputs, width, bias=False))
        setattr(self, names[-1], nn.Linear(width, inputs, bias=False))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        gate, up, down = (getattr(self, name) for name in self.names)
        return down(self.act_fn(gate(x)) * up(x))


class Experts(nn.ModuleList):
    """A layer's experts, each with matrices of its own, in place of the stacks."""

    def forward(self, x: torch.Tensor, index: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
        """x is (tokens × hidden); index and weights say which experts a token goes to."""
        y = torch.zeros_like(x)
        for e in index.unique().tolist():
            tokens, choices = torch.where(index == e)
            y.index_add_(0, tokens, (self[e](x[tokens]) * weights[tokens, choices, None]).to(y.dtype))
        return y


def renames(model_type: str) -> dict[str, str]:
    """What transformers renames of a checkpoint of the family on reading it, experts not
    put into stacks."""
    found = get_checkpoint_conversion_mapping(model_type) or []
    return {r.source_patterns[0]: r.target_patterns[0] for r in found if isinstance(r, WeightRenaming)}


APART = re.compile(r"\.experts\.\d+")  # in the name of an expert or of its tensors


def custom() -> bool:
    """Tells transformers to put nothing into stacks."""
    return True


class Beside(nn.Module):
    """In place of a matrix that is two: what the block's two give, one beside the other."""

    def __init__(self, block: nn.Module, names: tuple[str, ...]) -> None:
        super().__init__()
        self.block, self.names = [block], names  # in a list, so that it is no child

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.cat([getattr(self.block[0], name)(x) for name in self.names], -1)


class Scale:
    """The hook by which a down projection reads its input multiplied by the block's P."""

    def __init__(self, block: Any) -> None:
        self.block = block

    def __call__(self, module: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...]:
        return ((args[0] * self.block.mlp_scale).to(args[0].dtype), *args[1:])


@dataclass
class Block:
    """A fused MLP of a model."""

    name: str
    module: Any
    form: dict[str, Any]  # its entry in config.json
    matrices: list[Any] = field(default_factory=list)  # the down projection is last

    @property
    def scale(self) -> torch.Tensor | None:
        return getattr(self.module, "mlp_scale", None)

    @property
    def step(self) -> torch.Tensor | None:
        return getattr(self.module, "mlp_step", None)


def forms(config: Any) -> dict[str, dict[str, Any]]:
    """The forms of a configuration's fused MLPs, by name, and where each layer has a width
    those of all."""
    layers = enumerate(config.widths(config.hidden_size)) if isinstance(config, DeciLMConfig) else ()
    wide = {f"model.layers.{i}.mlp": {"width": width} for i, width in layers}
    fused = getattr(config, "mlpfusion", None)
    if fused is None:
        return wide
    if not isinstance(fused, dict) or not isinstance(fused.get("version"), int) or not isinstance(fused.get("layers"), dict):
        raise ValueError(f'config.json: key "mlpfusion": expected an object with a version and layers, found {str(fused)[:60]}')
    if fused["version"] > VERSION:
        raise ValueError(f'config.json: key "mlpfusion": expected version {VERSION} or older, found {fused["version"]}: a newer mlpfusion wrote it')
    return wide | fused["layers"]


def within(module: Any, path: str) -> Any:
    """The module at a path, None if there is none."""
    for name in path.split("."):
        module = getattr(module, name, None)
        if module is None:
            return None
    return module


def layout(block: Any) -> tuple[str, ...] | None:
    """The names of a block's matrices, None if it has none of the known layouts."""
    return next((names for names in LAYOUTS if all(within(block, name) is not None for name in names)), None)


def put(block: Any, path: str, module: nn.Module) -> None:
    parent, _, name = path.rpartition(".")
    setattr(within(block, parent) if parent else block, name, module)


def resized(old: Any, inputs: int, outputs: int, rank: int) -> nn.Module:
    """A matrix like old, of another size or as two factors."""
    bias = old.bias is not None
    if rank:
        return Factored(inputs, rank, outputs, bias)
    return Conv1D(outputs, inputs) if isinstance(old, Conv1D) else nn.Linear(inputs, outputs, bias=bias)


def sizes(matrix: Any) -> tuple[int, int]:
    """(inputs, outputs)"""
    return matrix.weight.shape if isinstance(matrix, Conv1D) else matrix.weight.shape[::-1]


Stock: Any = object  # a class of transformers comes beside it, see fused


class Fused(Stock):
    """What a class of transformers is mixed with to have fused MLPs."""

    def __init__(self, config: Any, *args: Any, tensors: Iterable[str] = (), **kwargs: Any) -> None:
        """tensors are the names that the checkpoint has: by them alone it tells which
        blocks have P and step multipliers."""
        super().__init__(config, *args, **kwargs)
        self._split_experts(tensors)
        fixed = {n.removeprefix(self.base_model_prefix + ".") for n in tensors if n.endswith((".mlp_scale", ".mlp_step"))}
        blocks = {b.name: b for b in self.fused_blocks()}
        shared = {}
        for b in blocks.values():
            self._reshape(b, fixed)
            if owner := b.form.get("weights"):
                if owner not in blocks:
                    raise ValueError(f"config.json: mlpfusion: layer {b.name}: weights: expected a layer that has its own, found {owner!r}")
                own = self._path(owner)
                for name, _ in b.module.named_parameters():
                    shared[f"{self._path(b.name)}.{name}"] = f"{own}.{name}"
        if shared:
            self._shared = shared
            self._tied_weights_keys: Any = {**(getattr(self, "_tied_weights_keys", None) or {}), **shared}
            self.all_tied_weights_keys.update(shared)
            self.tie_weights(recompute_mapping=False)

    def _split_experts(self, tensors: Iterable[str]) -> None:
        """Gives the experts that the checkpoint holds apart, if some are fused, matrices of
        their own."""
        if not any(APART.search(name) for name in forms(self.config)):
            return
        prefix = self.base_model_prefix + "."
        names = [self._renamed(n).removeprefix(prefix) for n in tensors]
        modules: list[tuple[str, Any]] = list(self.named_modules())
        for path, stacks in modules:
            if not isinstance(getattr(stacks, "gate_up_proj", None), nn.Parameter):
                continue
            before = path.removeprefix(prefix) + ".0."
            parts = next((p for p in LAYOUTS if len(p) == 3 and any(n.startswith(before + p[0] + ".") for n in names)), None)
            if parts:
                experts, hidden, width = stacks.down_proj.shape
                put(self, path, Experts(Expert(parts, hidden, width, stacks.act_fn) for _ in range(experts)))
                self.base_model.is_custom_code = custom

    def _renamed(self, name: str) -> str:
        """The name of a tensor or block in this model, of that in the checkpoint."""
        for old, new in renames(self.config.model_type).items():
            name = re.sub(old, new, name)
        return name

    def _path(self, name: str) -> str:
        """Where a block of config.json is in this model: under its name, in a model without
        a head behind the prefix, or, in T5 with a head for labels, under it."""
        prefix = self.base_model_prefix + "."
        name = self._renamed(name)
        return next((n for n in (name, name.removeprefix(prefix), prefix + name) if within(self, n) is not None), name)

    def fused_blocks(self) -> list[Block]:
        """The fused MLPs, in the order of config.json."""
        found = []
        for name, form in forms(self.config).items():
            module = within(self, self._path(name))
            names = module is not None and layout(module)
            if not names:
                raise ValueError(f"config.json: mlpfusion: expected MLPs that {type(self).__name__} has, with matrices named like {LAYOUTS[-2]}, found {name}")
            found.append(Block(name, module, form, [within(module, n) for n in names]))
        return found

    def _reshape(self, b: Block, fixed: set[str]) -> None:
        names, width, rank = layout(b.module) or (), b.form["width"], b.form.get("rank", 0)
        for path, old in zip(names, b.matrices):
            inputs, outputs = sizes(old)
            if path == names[-1]:
                put(b.module, path, resized(old, width, outputs, rank))
            elif path not in HALVES:
                put(b.module, path, resized(old, inputs, width, rank))
            elif rank:
                for half in HALVES[path]:
                    put(b.module, half, resized(old, inputs, width, rank))
                put(b.module, path, Beside(b.module, HALVES[path]))
            else:
                put(b.module, path, resized(old, inputs, 2 * width, 0))
        for what in ("mlp_scale", "mlp_step"):
            if f"{b.name}.{what}".removeprefix(self.base_model_prefix + ".") in fixed:
                b.module.register_buffer(what, torch.ones(width, dtype=torch.float32))
        if b.scale is not None:
            within(b.module, names[-1]).register_forward_pre_hook(Scale(b.module))

    def get_expanded_tied_weights_keys(self, all_submodels: bool = False) -> dict[str, str]:
        return {**super().get_expanded_tied_weights_keys(all_submodels=all_submodels), **getattr(self, "_shared", {})}

    def _apply(self, fn: Any, recurse: bool = True) -> Any:
        """P and step multipliers stay float32: not all cluster sizes above 256 are bfloat16
        numbers."""
        kept = [(b.module, what, b.module._buffers[what]) for b in self.fused_blocks() for what in ("mlp_scale", "mlp_step") if what in b.module._buffers]
        super()._apply(fn, recurse)
        for module, what, was in kept:
            now = module._buffers[what]
            if now.dtype != was.dtype:
                module._buffers[what] = was.to(now.device)
        return self

    def save_pretrained(self, save_directory: Any, is_main_process: bool = True, state_dict: Any = None, **kwargs: Any) -> None:
        """As transformers', P and step multipliers under the names of config.json's blocks."""
        state_dict = dict(self.state_dict() if state_dict is None else state_dict)
        for b in self.fused_blocks():
            at = self._path(b.name)
            for what in (".mlp_scale", ".mlp_step") if at.endswith("." + b.name) else ():
                if at + what in state_dict:
                    state_dict[b.name + what] = state_dict.pop(at + what)
        super().save_pretrained(save_directory, is_main_process, state_dict, **kwargs)

    @classmethod
    def from_pretrained(cls, name: Any, *args: Any, **kwargs: Any) -> Any:
        tensors = stored(name, kwargs)
        if any(APART.search(n) for n in tensors):
            where = {k: kwargs[k] for k in WHERE if k in kwargs}
            config = transformers.PreTrainedConfig.get_config_dict(name, **where)[0]
            if any(APART.search(n) for n in config.get("mlpfusion", {}).get("layers", {})):
                kwargs["key_mapping"] = renames(config["model_type"]) | (kwargs.get("key_mapping") or {})
        return super().from_pretrained(name, *args, tensors=tensors, **kwargs)


# What says where a checkpoint is, of from_pretrained's arguments.
WHERE = ("cache_dir", "force_download", "proxies", "token", "revision", "local_files_only", "subfolder")


def stored(name: Any, kwargs: dict[str, Any]) -> list[str]:
    """The names of a checkpoint's tensors."""
    find: Any = functools.partial(
        cached_file, name, _raise_exceptions_for_missing_entries=False, **{k: kwargs[k] for k in WHERE if kwargs.get(k) is not None}
    )
    if index := find("model.safetensors.index.json"):
        with open(index, encoding="utf-8") as f:
            names = list(json.load(f)["weight_map"])
    elif weights := find("model.safetensors"):
        with safe_open(weights, "pt") as f:
            names = list(f.keys())
    else:
        return []
    for quantized in names:
        if quantized.endswith(".weight_scale"):
            raise ValueError(f"{name}: expected matrices of floats, found {quantized}, the factors of int8 rows: mlpfusion export --remote-code writes them as float32")
    return names


class Entry(dict[str, Any]):
    """An object of config.json whose keys are attributes too."""

    def __getattr__(self, key: str) -> Any:
        try:
            return self[key]
        except KeyError:
            raise AttributeError(key) from None


class DeciLMConfig(transformers.LlamaConfig):
    """Of nemotron-nas, Llamas with a width for each layer, which transformers has no class
    for. Others that read them, vLLM for one, take block_configs' keys as attributes."""

    model_type = "nemotron-nas"

    def __init__(self, block_configs: Any = None, **kwargs: Any) -> None:
        self.block_configs = [Entry({k: Entry(v) if isinstance(v, dict) else v for k, v in b.items()}) for b in block_configs or ()]
        for b in self.block_configs:
            if not b.attention.get("n_heads_in_group") or any(b[part].get(k) for part in ("attention", "ffn") for k in ("no_op", "replace_with_linear")):
                raise ValueError(f"config.json: block_configs: expected attention with n_heads_in_group and an MLP in every layer, found {dict(b)}")
        if block_configs:
            kwargs["intermediate_size"] = max(self.widths(kwargs["hidden_size"]))
        super().__init__(**kwargs)

    def widths(self, hidden: int) -> list[int]:
        """The hidden units of each layer's MLP: ffn_mult is rounded up to a multiple of 256."""
        units = [b.ffn.get("ffn_mult") for b in self.block_configs]
        return [b.ffn.intermediate_size if m is None else -(int(2 * m * hidden / 3) // -256) * 256 for b, m in zip(self.block_configs, units)]


@functools.cache
def fused(stock: Any) -> Any:
    """The class of transformers with fused MLPs. It bears the same name, which is what
    config.json's architectures say."""
    if hasattr(stock, "fused_blocks"):
        return stock
    strict = {"mlp_scale", "mlp_step", *(stock._keep_in_fp32_modules_strict or ())}
    return type(stock.__name__, (Fused, stock), {"__module__": __name__, "__doc__": stock.__doc__, "_keep_in_fp32_modules_strict": strict})


class Grouped(Stock):
    """What a class of Llama is mixed with to share keys and values among the number of heads
    that block_configs gives for each layer."""

    def __init__(self, config: Any, *args: Any, **kwargs: Any) -> None:
        super().__init__(config, *args, **kwargs)
        for layer, block in zip(self.base_model.layers, config.block_configs):
            attention, group = layer.self_attn, block.attention.n_heads_in_group
            attention.num_key_value_groups = group
            for name in ("k_proj", "v_proj"):
                old = getattr(attention, name)
                setattr(attention, name, resized(old, old.in_features, config.num_attention_heads // group * attention.head_dim, 0))


@functools.cache
def decilm(name: str) -> Any:
    """A class of Llama under the name that nemotron-nas has for it."""
    stock = fused(getattr(transformers, name.replace("DeciLM", "Llama")))
    return type(name, (Grouped, stock), {"__module__": __name__, "__doc__": stock.__doc__, "config_class": DeciLMConfig})


def __getattr__(name: str) -> Any:
    if name in ("DeciLMForCausalLM", "DeciLMModel"):
        return decilm(name)
    stock: Any = None if name.startswith("_") else getattr(transformers, name, None)
    if transformers.PreTrainedModel not in getattr(stock, "__mro__", ()):
        raise AttributeError(f"module {__name__!r} has no class of transformers named {name!r}")
    return fused(stock)
