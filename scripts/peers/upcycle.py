"""The peer of `mlpfusion upcycle`:

    python scripts/peers/upcycle.py make T5 [VOCAB]   writes a small random T5
    python scripts/peers/upcycle.py compare MODEL SWITCH

compare loads a T5 or Switch model and a Switch model with plain transformers,
where no tensor may be missing, unexpected or of another shape, and prints as JSON
the largest difference of their logits relative to the largest logit, and the
tokens of each expert.
"""

import json
import sys

import torch
import transformers
from transformers import AutoConfig, SwitchTransformersForConditionalGeneration, T5Config, T5ForConditionalGeneration

transformers.utils.logging.disable_progress_bar()


def make(out, vocab=96):
    torch.manual_seed(7)
    config = T5Config(
        vocab_size=int(vocab), d_model=32, d_kv=8, d_ff=64, num_layers=4, num_decoder_layers=2, num_heads=4,
        decoder_start_token_id=0, initializer_factor=0.5,
    )
    T5ForConditionalGeneration(config).save_pretrained(out)


def load(path):
    kinds = {"t5": T5ForConditionalGeneration, "switch_transformers": SwitchTransformersForConditionalGeneration}
    kind = kinds[AutoConfig.from_pretrained(path).model_type]
    model, info = kind.from_pretrained(path, output_loading_info=True)
    for key in ("missing_keys", "unexpected_keys", "mismatched_keys", "error_msgs"):
        if info.get(key):
            sys.exit(f"{path}: {key}: {info[key]}")
    return model.eval()


@torch.no_grad()
def compare(model, switch):
    a, b = load(model), load(switch)
    counts = [0] * b.config.num_experts

    def count(_, __, output):
        for e, n in enumerate(output[0].sum((0, 1)).tolist()):
            counts[e] += int(n)

    for name, module in b.named_modules():
        if name.endswith(".router"):
            module.register_forward_hook(count)
    g = torch.Generator().manual_seed(1)
    batch = {"input_ids": torch.randint(2, 96, (8, 40), generator=g), "decoder_input_ids": torch.randint(2, 96, (8, 12), generator=g)}
    want, got = a(**batch).logits, b(**batch).logits
    print(json.dumps({"difference": float((want - got).abs().max() / want.abs().max()), "tokens": counts}))


if __name__ == "__main__":
    {"make": make, "compare": compare}[sys.argv[1]](*sys.argv[2:])
