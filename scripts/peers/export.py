"""Loads what `mlpfusion export` wrote with plain transformers and compares:

    python scripts/peers/export.py EXPORTED PREDICTIONS SENTENCES

No tensor may be missing, unexpected or of another shape, and for each line of
SENTENCES the log-probabilities must agree within 1e-4 with PREDICTIONS, the lines
that `mlpfusion predict --json` printed for the model before its export.
"""

import json
import math
import pathlib
import sys

import torch
import transformers
from transformers import AutoModelForSequenceClassification, AutoTokenizer

transformers.utils.logging.disable_progress_bar()


def main(exported, predictions, sentences):
    model, info = AutoModelForSequenceClassification.from_pretrained(exported, output_loading_info=True)
    for kind in ("missing_keys", "unexpected_keys", "mismatched_keys", "error_msgs"):
        if info.get(kind):
            sys.exit(f"{exported}: {kind}: {info[kind]}")
    widths = {tuple(p.shape)[0] for n, p in model.named_parameters() if n.endswith("intermediate.dense.weight")}
    tokenizer = AutoTokenizer.from_pretrained(exported)
    lines = pathlib.Path(sentences).read_text().splitlines()
    found = [json.loads(line) for line in pathlib.Path(predictions).read_text().splitlines()]
    if len(lines) != len(found) or not lines:
        sys.exit(f"{predictions}: expected {len(lines)} lines, found {len(found)}")
    worst = 0.0
    with torch.no_grad():
        for text, ours in zip(lines, found):
            logits = model.eval()(**tokenizer(text, return_tensors="pt")).logits[0]
            theirs = logits.double().log_softmax(-1).tolist()
            worst = max(worst, *(abs(math.log(a) - b) for a, b in zip(ours["scores"], theirs, strict=True)))
            if ours["label"] != model.config.id2label[int(logits.argmax())]:
                sys.exit(f"{text!r}: transformers says {model.config.id2label[int(logits.argmax())]}, we say {ours['label']}")
    if worst > 1e-4:
        sys.exit(f"{exported}: log-probabilities differ by {worst:.1e}")
    print(f"  {pathlib.Path(exported).name}: loads in transformers, {widths} units a block, log-probabilities of {len(lines)} sentences within {worst:.1e}")


if __name__ == "__main__":
    main(*sys.argv[1:4])
