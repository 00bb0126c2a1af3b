"""SentenceTransformer(OUT) of what mlpfusion makes from a sentence-transformers model.

    python sentences.py make MINILM MODEL      lay all-MiniLM-L6-v2 out as the hub has it
    python sentences.py check MODEL OUT...     each OUT pools, normalises and cuts as MODEL,
                                               over the hidden states of its own weights
"""

import json
import shutil
import sys
from pathlib import Path

import torch
from sentence_transformers import SentenceTransformer
from transformers import AutoModel, AutoTokenizer

TEXTS = ["a warm and funny portrait", "two dull hours", "it never ends , " * 200]


def make(minilm, model):
    """The package of the demo's model has modules.json and not the folder that it names."""
    shutil.copytree(minilm, model)
    pooling = Path(model, "1_Pooling", "config.json")
    pooling.parent.mkdir(exist_ok=True)
    modes = ("cls_token", "mean_tokens", "max_tokens", "mean_sqrt_len_tokens")
    config = {"word_embedding_dimension": 384, **{f"pooling_mode_{m}": m == "mean_tokens" for m in modes}}
    pooling.write_text(json.dumps(config, indent=2))


@torch.no_grad()
def by_hand(path):
    """Means of the hidden states over at most 256 tokens, of length one."""
    tokenizer, model = AutoTokenizer.from_pretrained(path), AutoModel.from_pretrained(path, trust_remote_code=True).eval()
    batch = tokenizer(TEXTS, padding=True, truncation=True, max_length=256, return_tensors="pt")
    states, mask = model(**batch).last_hidden_state, batch["attention_mask"][..., None]
    return torch.nn.functional.normalize((states * mask).sum(1) / mask.sum(1), dim=1)


def check(original, outs):
    kinds = [type(m).__name__ for m in SentenceTransformer(original)]
    for out in outs:
        model = SentenceTransformer(out, trust_remote_code=True)
        if (found := [type(m).__name__ for m in model]) != kinds or kinds != ["Transformer", "Pooling", "Normalize"]:
            sys.exit(f"{out}: expected the modules {kinds}, found {found}")
        want, got = by_hand(out), torch.as_tensor(model.encode(TEXTS))
        distance = (want - got).abs().max().item()
        # Sums of 256 float32 numbers of at most one, in another order.
        if not distance < 1e-6:
            sys.exit(f"{out}: embeddings are {distance} from those by hand")
        close = (got * torch.as_tensor(SentenceTransformer(original).encode(TEXTS))).sum(1)
        print(f"  {Path(out).name}: {distance:.1e} from by hand, cosines with the original's {close.min().item():.4f} and more")


if __name__ == "__main__":
    if sys.argv[1] == "make":
        make(*sys.argv[2:4])
    else:
        check(sys.argv[2], sys.argv[3:])
