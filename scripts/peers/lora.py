"""Loads an adapter that mlpfusion wrote with PEFT and compares:

    python scripts/peers/lora.py BASE ADAPTER PREDICTIONS SENTENCES

For each line of SENTENCES the log-probabilities must agree within 1e-4 with PREDICTIONS,
the lines that `mlpfusion predict --adapter … --json` printed.
"""

import json
import math
import sys

import torch
import transformers
from peft import PeftModel
from transformers import AutoModelForSequenceClassification, AutoTokenizer

transformers.utils.logging.disable_progress_bar()


def main(base, adapter, predictions, sentences):
    rows = [json.loads(line)["scores"] for line in open(predictions)]
    model = AutoModelForSequenceClassification.from_pretrained(base, num_labels=len(rows[0]))
    model = PeftModel.from_pretrained(model, adapter).eval()
    tokenizer = AutoTokenizer.from_pretrained(base)
    worst = 0
    for text, scores in zip(open(sentences).read().splitlines(), rows, strict=True):
        with torch.no_grad():
            got = model(**tokenizer(text, return_tensors="pt")).logits.log_softmax(-1)[0].tolist()
        worst = max(worst, *(abs(a - math.log(b)) for a, b in zip(got, scores.values(), strict=True)))
    print(f"  {adapter}: log-probabilities differ by at most {worst:.1e}")
    sys.exit(worst > 1e-4)


if __name__ == "__main__":
    main(*sys.argv[1:])
