"""Loads what `mlpfusion export` wrote with plain transformers and compares:

    python scripts/peers/export.py EXPORTED PREDICTIONS SENTENCES

No tensor may be missing, unexpected or of another shape (of a Switch Transformer,
for which transformers has no class with a label head, but the head's), and for each line of
SENTENCES the log-probabilities must agree within 1e-4 with PREDICTIONS, the lines
that `mlpfusion predict --json` printed for the model before its export. Encoders are also written
as ONNX, and ONNX Runtime's logits compared with PyTorch's.
"""

import json
import math
import pathlib
import sys
import tempfile
import warnings

import onnxruntime
import torch
import transformers
from safetensors.torch import load_file
from transformers import AutoConfig, AutoModelForSequenceClassification, AutoTokenizer, SwitchTransformersModel

transformers.utils.logging.disable_progress_bar()

HEAD = "classification_head."


class SwitchClassifier(torch.nn.Module):
    """A Switch Transformer whose decoder reads the start token, with T5's label head."""

    def __init__(self, exported):
        super().__init__()
        self.transformer, self.info = SwitchTransformersModel.from_pretrained(exported, output_loading_info=True)
        self.config = self.transformer.config
        tensors = load_file(f"{exported}/model.safetensors")
        self.head = {name.removeprefix(HEAD): t for name, t in tensors.items() if name.startswith(HEAD)}
        self.info["unexpected_keys"] = set(self.info["unexpected_keys"]) - {HEAD + name for name in self.head}

    def forward(self, input_ids, attention_mask):
        start = torch.full((len(input_ids), 1), self.config.decoder_start_token_id)
        state = self.transformer(input_ids=input_ids, attention_mask=attention_mask, decoder_input_ids=start).last_hidden_state[:, 0]
        layer = lambda x, name: torch.nn.functional.linear(x, self.head[name + ".weight"], self.head[name + ".bias"])
        return transformers.modeling_outputs.SequenceClassifierOutput(logits=layer(torch.tanh(layer(state, "dense")), "out_proj"))


def load(exported):
    if AutoConfig.from_pretrained(exported).model_type == "switch_transformers":
        model = SwitchClassifier(exported)
        return model, model.info
    return AutoModelForSequenceClassification.from_pretrained(exported, output_loading_info=True)


class Logits(torch.nn.Module):
    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, input_ids, attention_mask):
        return self.model(input_ids=input_ids, attention_mask=attention_mask).logits


def in_onnx(exported, tokenizer, lines):
    """The largest difference of a logit in ONNX Runtime from PyTorch's."""
    model = AutoModelForSequenceClassification.from_pretrained(exported, attn_implementation="eager").eval()
    read = lambda text: {k: v for k, v in tokenizer(text, return_tensors="pt").items() if k in ("input_ids", "attention_mask")}
    axes = {name: {0: "batch", 1: "length"} for name in ("input_ids", "attention_mask")}
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that this exporter is the older one
        path = f"{folder}/model.onnx"
        torch.onnx.export(Logits(model), tuple(read(lines[0])[k] for k in axes), path, dynamo=False, opset_version=17, input_names=list(axes), output_names=["logits"], dynamic_axes=axes)
        model.eval()  # the exporter leaves dropout on
        session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
        found = [torch.from_numpy(session.run(None, {k: v.numpy() for k, v in read(t).items()})[0]) for t in lines]
    return max((a - model(**read(t)).logits).abs().max().item() for t, a in zip(lines, found))


def main(exported, predictions, sentences):
    model, info = load(exported)
    for kind in ("missing_keys", "unexpected_keys", "mismatched_keys", "error_msgs"):
        if info.get(kind):
            sys.exit(f"{exported}: {kind}: {info[kind]}")
    widths = {tuple(p.shape)[0] for n, p in model.named_parameters() if n.endswith(("intermediate.dense.weight", "wi.weight"))}
    tokenizer = AutoTokenizer.from_pretrained(exported)
    lines = pathlib.Path(sentences).read_text().splitlines()
    found = [json.loads(line) for line in pathlib.Path(predictions).read_text().splitlines()]
    if len(lines) != len(found) or not lines:
        sys.exit(f"{predictions}: expected {len(lines)} lines, found {len(found)}")
    worst = 0.0
    with torch.no_grad():
        for text, ours in zip(lines, found):
            tokens = tokenizer(text, return_tensors="pt")
            logits = model.eval()(input_ids=tokens["input_ids"], attention_mask=tokens["attention_mask"]).logits[0]
            theirs = logits.double().log_softmax(-1).tolist()
            worst = max(worst, *(abs(math.log(ours["scores"][model.config.id2label[i]]) - b) for i, b in enumerate(theirs)))
            if ours["label"] != model.config.id2label[int(logits.argmax())]:
                sys.exit(f"{text!r}: transformers says {model.config.id2label[int(logits.argmax())]}, we say {ours['label']}")
    if worst > 1e-4:
        sys.exit(f"{exported}: log-probabilities differ by {worst:.1e}")
    onnx = ""
    if isinstance(model, transformers.BertForSequenceClassification):
        with torch.no_grad():
            difference = in_onnx(exported, tokenizer, lines)
        if not difference <= 1e-4:
            sys.exit(f"{exported}: logits in ONNX Runtime differ by {difference:.1e}")
        onnx = f"; in ONNX Runtime {onnxruntime.__version__} logits within {difference:.1e}"
    print(f"  {pathlib.Path(exported).name}: loads in transformers, {widths} units a block, log-probabilities of {len(lines)} sentences within {worst:.1e}{onnx}")


if __name__ == "__main__":
    main(*sys.argv[1:4])
