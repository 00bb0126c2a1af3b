"""GPT-2 at its real shape (12 layers, 768, 3072, 50257 words), in transformers:

    python scripts/peers/gpt2.py make MODEL TOKENIZER DATA
        saves a model with random weights and a folder of WebNLG texts
    python scripts/peers/gpt2.py check MODEL DATA EVAL.json
        loads MODEL, without any code of ours, and compares the mean −log p of the
        texts' tokens with what mlpfusion eval --json says

No weights of GPT-2 can be had where this project is built; these are as large
as trained ones', so that every part of the model bears on what it computes.
"""

import json
import pathlib
import shutil
import sys
import xml.etree.ElementTree as ET

import torch
from transformers import AutoTokenizer, GPT2Config, GPT2LMHeadModel

TEXTS = [
    ("Aarhus_Airport | cityServed | Aarhus", "Aarhus airport serves the city of Aarhus, in Denmark."),
    ("Ajoblanco | ingredient | Almond", "Almonds are one of the ingredients of ajoblanco – a cold soup."),
    ("Alan_Bean | occupation | Test_pilot", "Alan Bean was born in Wheeler, Texas, and worked as a test pilot."),
]


def make(model, tokenizer, data):
    torch.manual_seed(0)
    net = GPT2LMHeadModel(GPT2Config(initializer_range=0.05))
    with torch.no_grad():
        for name, p in net.named_parameters():
            if p.dim() == 1:
                p.add_(0.1 * torch.randn(p.shape))
    net.save_pretrained(model)
    for name in ("vocab.json", "merges.txt"):
        shutil.copy(pathlib.Path(tokenizer) / name, model)
    root = ET.Element("benchmark")
    entries = ET.SubElement(root, "entries")
    for i, (triple, text) in enumerate(TEXTS):
        entry = ET.SubElement(entries, "entry", category="Airport", eid=f"Id{i}")
        ET.SubElement(ET.SubElement(entry, "modifiedtripleset"), "mtriple").text = triple
        ET.SubElement(entry, "lex", comment="good").text = text
    pathlib.Path(data).mkdir()
    ET.ElementTree(root).write(pathlib.Path(data) / "dev.xml")


def check(model, _, result):
    net, info = GPT2LMHeadModel.from_pretrained(model, output_loading_info=True)
    wrong = {k: v for k, v in info.items() if v}
    if wrong:
        sys.exit(f"{model}: expected every tensor in its place, found {wrong}")
    tokenizer = AutoTokenizer.from_pretrained(model)
    total, count = 0.0, 0
    for triple, text in TEXTS:
        prompt = tokenizer(triple.replace(" | ", " : ")).input_ids + [50256]
        ids = prompt + tokenizer(" " + text).input_ids + [50256]
        with torch.no_grad():
            p = net.eval()(torch.tensor([ids])).logits[0].double().log_softmax(-1)
        for at in range(len(prompt), len(ids)):
            total -= p[at - 1, ids[at]].item()
            count += 1
    metrics = {m["name"]: m["value"] for m in json.loads(pathlib.Path(result).read_text())[0]["metrics"]}
    want, got = total / count, metrics["loss"]
    print(f"  {model}: mean -log p of {count} tokens: transformers {want:.6f}, ours {got:.6f}")
    if abs(want - got) > 1e-5 * want:
        sys.exit(f"{model}: expected the two within 1e-5 of each other")


if __name__ == "__main__":
    {"make": make, "check": check}[sys.argv[1]](*sys.argv[2:])
