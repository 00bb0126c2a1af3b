"""Narrows the tiny decoders with mixtures of experts of model/testdata, exports them and
loads the results with plain transformers:

    python scripts/peers/mixtures.py MLPFUSION

MLPFUSION is the command. No tensor may be missing, unexpected or of another shape, merged
experts included.
"""

import pathlib
import subprocess
import sys
import tempfile

import transformers
from transformers import AutoModelForCausalLM

ROOT = pathlib.Path(__file__).resolve().parents[2]
METHODS = [["fusion", "--ratio", "0.5"], ["svd", "--ratio", "0.5"], ["prune", "--ratio", "0.5", "--layers", "1"]]

transformers.utils.logging.disable_progress_bar()
transformers.utils.logging.set_verbosity_error()


def main(command):
    folders = sorted(p.parent for p in (ROOT / "model" / "testdata").glob("*/config.json") if '"num_experts_per_tok"' in p.read_text())
    if not folders:
        sys.exit("no mixtures in model/testdata")
    for folder in folders:
        for method in METHODS:
            with tempfile.TemporaryDirectory() as tmp:
                for line in (["fuse", folder, f"{tmp}/small", "--method", *method], ["export", f"{tmp}/small", f"{tmp}/plain", "--pad"]):
                    subprocess.run([command, "--quiet", *line], check=True, capture_output=True)
                _, info = AutoModelForCausalLM.from_pretrained(f"{tmp}/plain", output_loading_info=True)
                for kind in ("missing_keys", "unexpected_keys", "mismatched_keys", "error_msgs", "conversion_errors"):
                    if info.get(kind):
                        sys.exit(f"{folder.name}, {method[0]}: {kind}: {info[kind]}")
    print(f"  {len(folders)} decoders with mixtures, compressed by {', '.join(m[0] for m in METHODS)} and exported, load in transformers")


if __name__ == "__main__":
    main(sys.argv[1])
