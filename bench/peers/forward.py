"""Runs a checkpoint of ours, fused or not, in PyTorch, from its own tensors.

    python bench/peers/forward.py MODEL INPUT OUTPUT

MODEL is a folder: a plain Hugging Face checkpoint, or one with "mlpfusion" in its
config.json, whose blocks are then rebuilt: narrower matrices, P
(BLOCK.mlp_scale) after the activation, a matrix as two factors
(….factor_v, ….factor_u). INPUT is a safetensors file with ids, types and offsets
(sequences laid end to end); OUTPUT gets hidden.0 … hidden.L (tokens × hidden) and,
where there is a head, logits: float32, computed in float64.
"""

import argparse
import json
import pathlib

import common  # before torch: it sets the environment

import torch
from safetensors.torch import load_file, save_file
from transformers import AutoConfig, AutoModel, AutoModelForSequenceClassification


class Scaled(torch.nn.Module):
    """P·σ(…): an activation with the counts of its units behind it."""

    def __init__(self, act, p):
        super().__init__()
        self.act, self.p = act, p.double()

    def forward(self, x):
        return self.p * self.act(x)


class Factored(torch.nn.Module):
    def __init__(self, v, u):
        super().__init__()
        self.factor_v, self.factor_u = torch.nn.Parameter(torch.empty_like(v)), torch.nn.Parameter(torch.empty_like(u))
        self.bias = torch.nn.Parameter(torch.empty(len(u)))

    def forward(self, x):
        return x @ self.factor_v.T @ self.factor_u.T + self.bias


def linear(tensors, name):
    """A module, yet without values, of the shape that the checkpoint has."""
    if name + ".factor_v" in tensors:
        return Factored(tensors[name + ".factor_v"], tensors[name + ".factor_u"])
    out, into = tensors[name + ".weight"].shape
    return torch.nn.Linear(into, out)


def rebuild(model, tensors, block):
    """Gives one fused block the form of its tensors."""
    p = tensors.pop(block + ".mlp_scale", None)
    tensors.pop(block + ".mlp_step", None)  # of training only
    module = model.get_submodule(block)
    if hasattr(module, "lin1"):  # DistilBERT
        module.lin1, module.lin2 = linear(tensors, block + ".lin1"), linear(tensors, block + ".lin2")
        if p is not None:
            module.activation = Scaled(module.activation, p)
        return
    module.intermediate.dense = linear(tensors, block + ".intermediate.dense")
    module.output.dense = linear(tensors, block + ".output.dense")
    if p is not None:
        module.intermediate.intermediate_act_fn = Scaled(module.intermediate.intermediate_act_fn, p)


def load(path):
    """The model; a base model where the checkpoint has no head. Refuses tensors
    that are missing or left over."""
    tensors = {name: t.float() for f in path.glob("model*.safetensors") for name, t in load_file(f).items()}
    tensors = {name: t for name, t in tensors.items() if not name.endswith("position_ids")}
    config = AutoConfig.from_pretrained(path)
    whole = any(name.startswith(config.model_type + ".") for name in tensors)
    model = (AutoModelForSequenceClassification if whole else AutoModel).from_config(config, attn_implementation="eager")
    for block in json.loads((path / "config.json").read_text()).get("mlpfusion", {}).get("layers", {}):
        rebuild(model, tensors, block if whole else block.removeprefix(config.model_type + "."))
    model.load_state_dict(tensors)
    return model.double().eval()


def main():
    parser = argparse.ArgumentParser()
    for name in ("model", "input", "output"):
        parser.add_argument(name, type=pathlib.Path)
    args = parser.parse_args()
    model = load(args.model)
    data = load_file(args.input)
    rows = [slice(s, e) for s, e in zip(data["offsets"][:-1].tolist(), data["offsets"][1:].tolist())]
    ids, mask = common.pad([data["ids"][r].tolist() for r in rows], pad_id=model.config.pad_token_id)
    inputs = dict(input_ids=ids, attention_mask=mask)
    if getattr(model.config, "type_vocab_size", 0) > 1:
        inputs["token_type_ids"] = common.pad([data["types"][r].tolist() for r in rows])[0]
    with torch.inference_mode():
        out = model(**inputs, output_hidden_states=True)
    result = {f"hidden.{i}": h[mask.bool()] for i, h in enumerate(out.hidden_states)}
    if "logits" in out:
        result["logits"] = out.logits
    save_file({k: v.float().contiguous() for k, v in result.items()}, args.output)


if __name__ == "__main__":
    main()
