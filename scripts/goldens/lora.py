"""Writes the goldens of low-rank adapters in model/testdata: what PEFT makes of the tiny
checkpoints beside them and what PyTorch computes with that.

    python scripts/goldens/lora.py            writes them again
    python scripts/goldens/lora.py --check    compares with what is committed

Each folder lora-NAME is an adapter of the checkpoint NAME as PEFT saves it, with
golden.safetensors as model.py, gpt2.py and t5.py say: a batch, its logits and loss,
gradients, and ten AdamW steps, here of the adapter's tensors under the names that
adapter_model.safetensors has, less base_model.model.
"""

import json

import torch
import transformers
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM, AutoModelForSeq2SeqLM, AutoModelForSequenceClassification

import decoders
import gpt2
import model as classifiers
import t5
from common import ROOT, main

LABELS, TEXT, TEXTS = AutoModelForSequenceClassification, AutoModelForCausalLM, AutoModelForSeq2SeqLM
LLAMA = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]

# Of each checkpoint, its class and the adapter.
CASES = {
    "bert": (LABELS, dict(r=4, lora_alpha=6, target_modules=["query", "key", "value", "attention.output.dense", "intermediate.dense", "output.dense"],
                          modules_to_save=["pooler", "classifier"], rank_pattern={"layer.1.output.dense": 2, "key": 3}, alpha_pattern={"query": 5})),
    "roberta": (LABELS, dict(r=2, lora_alpha=4, use_rslora=True, target_modules=["query", "value"], modules_to_save=["classifier"])),
    "gpt2": (TEXT, dict(r=3, lora_alpha=3, fan_in_fan_out=True, target_modules=["c_attn", "c_proj", "c_fc"])),
    "gpt2-classifier": (LABELS, dict(r=3, lora_alpha=6, fan_in_fan_out=True, target_modules=["c_attn"], modules_to_save=["score"])),
    "llama-3": (TEXT, dict(r=4, lora_alpha=8, target_modules=LLAMA)),
    "gemma3": (TEXT, dict(r=4, lora_alpha=8, target_modules=["gate_proj", "down_proj"], layers_to_transform=[1, 2], layers_pattern="layers")),
    "phi3": (TEXT, dict(r=4, lora_alpha=4, target_modules=["qkv_proj", "o_proj", "gate_up_proj", "down_proj"])),
    "t5-gated": (TEXTS, dict(r=2, lora_alpha=4, target_modules=["q", "k", "v", "o", "wi_0", "wi_1", "wo"])),
    "switch": (TEXTS, dict(r=2, lora_alpha=4, target_modules=["q", "v", "wi", "wo"])),
}  # fmt: skip


def rename(name):
    return name.removeprefix("base_model.model.").replace(".modules_to_save.default", "").replace(".default", "")


def adapted(name, cls, options, seed, path):
    """The checkpoint with a random adapter, which is saved."""
    base = cls.from_pretrained(ROOT / "model" / "testdata" / name, attn_implementation="eager", dtype=torch.float32)
    task = {LABELS: "SEQ_CLS", TEXT: "CAUSAL_LM", TEXTS: "SEQ_2_SEQ_LM"}[cls]
    model = get_peft_model(base, LoraConfig(task_type=task, lora_dropout=0.0, **options))
    g = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for key, p in model.named_parameters():
            if "lora_" in key:
                p.copy_(0.2 * torch.randn(p.shape, generator=g))
    model.peft_config["default"].base_model_name_or_path = "../" + name
    model.save_pretrained(path)
    (path / "README.md").unlink()
    config = json.loads((path / "adapter_config.json").read_text())
    config["target_modules"].sort()
    (path / "adapter_config.json").write_text(json.dumps(config, indent=2, sort_keys=True) + "\n")
    model.rename = rename
    for module in model.modules():
        if hasattr(module, "expert_capacity"):
            module.dtype = torch.float64  # of the router
    return model.eval().double()


def golden(model, cls, path):
    if cls is LABELS:
        data, loss_of = classifiers.batches(model.config), lambda *a: classifiers.loss_of(*a)[0].loss
        logits = classifiers.loss_of(model, data[0])[0].logits
    elif cls is TEXTS:
        data, loss_of = t5.batches(equal=True), t5.loss_of
        out, _, inside = t5.run(model, data[0])
        logits = out.logits[inside]
    else:
        run = gpt2.run if model.config.model_type == "gpt2" else decoders.each
        data, loss_of = gpt2.batches(), lambda *a: gpt2.loss_of(*a, run)
        out, inside = run(model, data[0])
        logits = out.logits[inside]
    loss = loss_of(model, data[0])
    loss.backward()
    g = {f"{which}.{key}": value for which, d in zip("ab", data) for key, value in d.items()}
    g |= dict(logits=logits, loss=loss)
    g |= {f"grad.{name}": p.grad.clone() for name, p in classifiers.named(model) if p.grad is not None}
    g["losses"], g["norms"] = classifiers.train(model, data, loss_of)
    g |= {f"final.{name}": p for name, p in classifiers.named(model) if p.requires_grad}
    classifiers.write(g, path)


def write_all(out):
    torch.set_num_threads(1)
    transformers.utils.logging.disable_progress_bar()
    transformers.utils.logging.set_verbosity_error()
    for seed, (name, (cls, options)) in enumerate(CASES.items(), start=200):
        path = out / f"lora-{name}"
        path.mkdir(parents=True, exist_ok=True)
        golden(adapted(name, cls, options, seed, path), cls, path)


if __name__ == "__main__":
    main(write_all, ROOT / "model" / "testdata", [f"lora-{name}" for name in CASES])
