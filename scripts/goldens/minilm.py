"""Writes the golden of the real MiniLM, model/testdata/minilm/: what PyTorch
computes with it for two sentences. The model itself is not committed; tests
find it, as this script does, in the folder that MLPFUSION_MINILM names.

    MLPFUSION_MINILM=DIR python scripts/goldens/minilm.py [--check]

golden.safetensors, named as model.py's: a.ids, a.types, a.offsets, a.labels,
hidden.0 … hidden.6, pooled, logits, loss; head.NAME: the new classifier's values,
to be set before the forward pass; grad.NAME of the head and of one LayerNorm, and
gradnorm.NAME of every parameter: the 2-norm of its gradient. texts.json: the sentences.
"""

import json
import os

import torch
import transformers
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from common import ROOT, main
from model import loss_of, write

TEXTS = ["a quiet film, and a kind one.", "Nothing in it ever finds its feet!"]
WHOLE = ("classifier", "layer.5.output.LayerNorm")


def write_all(out):
    torch.set_num_threads(1)
    transformers.utils.logging.disable_progress_bar()
    transformers.utils.logging.set_verbosity_error()
    source = os.environ["MLPFUSION_MINILM"]
    rows = AutoTokenizer.from_pretrained(source)(TEXTS)["input_ids"]
    model = AutoModelForSequenceClassification.from_pretrained(source, attn_implementation="eager").eval()
    g = torch.Generator().manual_seed(40)
    with torch.no_grad():
        for p in model.classifier.parameters():
            p.copy_(0.2 * torch.randn(p.shape, generator=g))
    head = {f"head.{name}": p.detach().clone() for name, p in model.named_parameters() if "classifier" in name}
    ends = torch.tensor([len(r) for r in rows]).cumsum(0)
    data = dict(ids=torch.tensor(sum(rows, [])), types=torch.zeros(ends[-1], dtype=torch.long), offsets=torch.tensor([0, *ends]), labels=torch.tensor([1, 0]))

    model.double()
    result, mask = loss_of(model, data)
    result.loss.backward()
    tensors = {f"a.{key}": value for key, value in data.items()} | head
    tensors |= {f"hidden.{i}": h[mask] for i, h in enumerate(result.hidden_states)}
    tensors |= dict(pooled=model.bert.pooler(result.hidden_states[-1]), logits=result.logits, loss=result.loss)
    for name, p in model.named_parameters():
        tensors[f"gradnorm.{name}"] = p.grad.norm()
        if any(w in name for w in WHOLE):
            tensors[f"grad.{name}"] = p.grad
    out.mkdir(parents=True, exist_ok=True)
    write(tensors, out)
    (out / "texts.json").write_text(json.dumps(TEXTS, indent=1) + "\n")


if __name__ == "__main__":
    main(write_all, ROOT / "model" / "testdata" / "minilm")
