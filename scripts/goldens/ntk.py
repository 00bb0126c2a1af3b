"""Writes the goldens of ntk/: neural tangent kernels by PyTorch, one example and
one autograd pass at a time, of the tiny checkpoints of model/testdata.

    python scripts/goldens/ntk.py            writes ntk/testdata/goldens/ again
    python scripts/goldens/ntk.py --check    compares with what is committed

Each file NAME.safetensors holds, for the checkpoint of that name:
    ids, types, offsets         the examples, laid end to end
    targets                     of a language model: each token's next, or -1
    adam.L, sgd.L               the kernels of layer L's MLP (n × n)
    output.hidden, .logits      of bert-fused against bert, two unrelated models:
                                the output error of each layer and of the logits
bert.npy is bert's adam.0 as numpy writes it. The gradients are float64. sign(g) is torch.sign. A fused unit's products count
1/P_k times in the SGD kernel, as its learning rate is to be divided by P_k.
"""

import json

import numpy
import torch
import transformers
from safetensors.torch import load_file, save_file
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForSequenceClassification

import model as models
from common import ROOT, main

TESTDATA = ROOT / "model" / "testdata"
NAMES = ["bert", "bert-fused", "bert-svd", "bert-regression", "roberta", "gpt2"]


def load(name):
    """The model of a checkpoint, also of one in the project's own format."""
    path = TESTDATA / name
    if name == "gpt2":
        return AutoModelForCausalLM.from_pretrained(path, attn_implementation="eager").double().eval()
    if not name.startswith(("bert-fused", "bert-svd")):
        return AutoModelForSequenceClassification.from_pretrained(path, attn_implementation="eager").double().eval()
    config = AutoConfig.from_pretrained(path)
    net = AutoModelForSequenceClassification.from_config(config, attn_implementation="eager")
    tensors = load_file(path / "model.safetensors")
    for block, form in json.loads((path / "config.json").read_text())["mlpfusion"]["layers"].items():
        layer = net.bert.encoder.layer[int(block.rsplit(".", 1)[1])]
        if form.get("rank"):
            layer.intermediate.dense = models.Factored(layer.intermediate.dense, form["rank"])
            layer.output.dense = models.Factored(layer.output.dense, form["rank"])
            continue
        units = [[k] for k in range(form["width"])]
        mlp = models.FusedMLP(layer.intermediate.dense, layer.output.dense, units)
        layer.output.dense = mlp.down
        del mlp.down
        mlp.p = tensors.pop(block + ".mlp_scale").double()
        layer.intermediate = mlp
    own = {name: name.replace("intermediate.up.", "intermediate.dense.") for name, _ in net.named_parameters()}
    missing, extra = net.load_state_dict({name: tensors[stored] for name, stored in own.items()}, strict=False)
    assert not extra and all("position_ids" in m or "token_type_ids" in m for m in missing), (missing, extra)
    return net.double().eval()


def examples(config):
    """Lengths on both sides of where the Go code changes its way to a pair."""
    data = models.batch(config, [20, 3, 1, 11, 7, 5, 2, 14], 4, 90, 5)
    if config.model_type == "gpt2":
        data["targets"] = torch.cat([data["ids"][1:], torch.tensor([-1])]).int()
        data["targets"][data["offsets"][1:].long() - 1] = -1
        data["targets"][:4] = -1  # a prompt, as in generation tasks
    return data


def rows(data):
    return [slice(s, e) for s, e in zip(data["offsets"][:-1], data["offsets"][1:])]


def inputs(net, data, row):
    x = dict(input_ids=data["ids"][row][None])
    if getattr(net.config, "type_vocab_size", 0) > 1:
        x["token_type_ids"] = data["types"][row][None]
    return x


def layers_of(net):
    return net.base_model.h if hasattr(net.base_model, "h") else net.base_model.encoder.layer


def parameters(layer):
    """The MLP's parameters, each with what its squares are divided by for SGD."""
    if hasattr(layer, "mlp"):
        return [(p, 1.0) for p in layer.mlp.parameters()]
    found = [(p, 1.0) for m in (layer.intermediate, layer.output.dense) for p in m.parameters()]
    if isinstance(layer.intermediate, models.FusedMLP):
        p, up, down = layer.intermediate.p, layer.intermediate.up, layer.output.dense
        found = [(up.weight, p[:, None]), (up.bias, p), (down.weight, p[None, :]), (down.bias, 1.0)]
    return found


def function(logits, data, row):
    """What NTK derives: the output, the first class' probability, or the targets' log-likelihood."""
    if "targets" in data:
        targets = data["targets"][row].long()
        return logits.log_softmax(-1)[targets >= 0, targets[targets >= 0]].sum()
    return logits[0] if len(logits) == 1 else logits.softmax(-1)[0]


def kernels(net, data):
    blocks = [parameters(layer) for layer in layers_of(net)]
    gradients = [[] for _ in blocks]
    for row in rows(data):
        f = function(net(**inputs(net, data, row)).logits[0], data, row)
        flat = torch.autograd.grad(f, [p for block in blocks for p, _ in block])
        for block, seen in zip(blocks, gradients):
            seen.append(flat[: len(block)])
            flat = flat[len(block) :]
    for i, (block, seen) in enumerate(zip(blocks, gradients)):
        g = torch.stack([torch.cat([x.flatten() for x in gs]) for gs in seen])
        weighed = torch.stack([torch.cat([(x / s).flatten() for x, (_, s) in zip(gs, block)]) for gs in seen])
        yield f"adam.{i}", g @ g.sign().T
        yield f"sgd.{i}", weighed @ g.T


def output_errors(a, b, data):
    """Mean norms of the differences of two models' states, and of their logits."""
    hidden, logits, tokens = 0, 0, 0
    for row in rows(data):
        x, y = (net(**inputs(net, data, row), output_hidden_states=True) for net in (a, b))
        hidden = hidden + torch.stack([(u - v).norm(dim=-1).sum() for u, v in zip(x.hidden_states[1:], y.hidden_states[1:])])
        logits = logits + (x.logits - y.logits).norm()
        tokens += row.stop - row.start
    return {"output.hidden": hidden / tokens, "output.logits": logits[None] / len(rows(data))}


def write_all(out):
    torch.set_num_threads(1)
    transformers.utils.logging.disable_progress_bar()
    out.mkdir(parents=True, exist_ok=True)
    for name in NAMES:
        net = load(name)
        data = examples(net.config)
        g = {key: data[key].int() for key in ("ids", "types", "offsets", "targets") if key in data} | dict(kernels(net, data))
        if name == "bert-fused":
            with torch.no_grad():
                g |= output_errors(load("bert"), net, data)
        g = {key: v.float() if v.is_floating_point() else v for key, v in g.items()}
        save_file({key: v.detach().contiguous() for key, v in g.items()}, out / f"{name}.safetensors")
        if name == "bert":
            numpy.save(out / "bert.npy", g["adam.0"].detach().numpy())


if __name__ == "__main__":
    main(write_all, ROOT / "ntk" / "testdata" / "goldens")
