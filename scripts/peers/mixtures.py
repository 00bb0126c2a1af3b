"""Loads decoders with mixtures of experts, compressed and exported, with plain
transformers, where no tensor may be missing, unexpected or of another shape:

    python scripts/peers/mixtures.py MLPFUSION
    python scripts/peers/mixtures.py logits IDS FOLDER …

The first narrows and exports the tiny decoders of model/testdata by the command MLPFUSION.
The second prints as JSON, for each folder, the logits that follow each of several texts,
one text after the other: IDS is a JSON list of lists of token ids.
"""

import json
import pathlib
import subprocess
import sys
import tempfile

import torch
import transformers
from transformers import AutoModelForCausalLM

ROOT = pathlib.Path(__file__).resolve().parents[2]
METHODS = [["fusion", "--ratio", "0.5"], ["svd", "--ratio", "0.5"], ["prune", "--ratio", "0.5", "--layers", "1"]]

transformers.utils.logging.disable_progress_bar()
transformers.utils.logging.set_verbosity_error()


def load(folder, what):
    model, info = AutoModelForCausalLM.from_pretrained(folder, experts_implementation="eager", output_loading_info=True)
    for kind in ("missing_keys", "unexpected_keys", "mismatched_keys", "error_msgs", "conversion_errors"):
        if info.get(kind):
            sys.exit(f"{what}: {kind}: {info[kind]}")
    return model.eval()


@torch.no_grad()
def logits(ids, *folders):
    texts = [torch.tensor([text]) for text in json.loads(ids)]
    models = {folder: load(folder, folder) for folder in folders}
    print(json.dumps({folder: torch.cat([model(text).logits[0, -1] for text in texts]).tolist() for folder, model in models.items()}))


def main(command):
    folders = sorted(p.parent for p in (ROOT / "model" / "testdata").glob("*/config.json") if '"num_experts_per_tok"' in p.read_text())
    if not folders:
        sys.exit("no mixtures in model/testdata")
    for folder in folders:
        for method in METHODS:
            with tempfile.TemporaryDirectory() as tmp:
                for line in (["fuse", folder, f"{tmp}/small", "--method", *method], ["export", f"{tmp}/small", f"{tmp}/plain", "--pad"]):
                    subprocess.run([command, "--quiet", *line], check=True, capture_output=True)
                load(f"{tmp}/plain", f"{folder.name}, {method[0]}")
    print(f"  {len(folders)} decoders with mixtures, compressed by {', '.join(m[0] for m in METHODS)} and exported, load in transformers")


if __name__ == "__main__":
    if sys.argv[1] == "logits":
        logits(*sys.argv[2:])
    else:
        main(sys.argv[1])
