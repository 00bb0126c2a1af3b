"""Saves a T5 or Switch Transformer of a published shape, with random weights as
transformers initialises them, and what PyTorch computes with it:

    python scripts/peers/t5.py t5-small|t5-base|t5-v1_1-small|switch-base-8 FOLDER

FOLDER then holds the checkpoint and golden.safetensors as scripts/goldens/t5.py
describes it, without gradients; model's TestPublishedShapes reads them.
"""

import pathlib
import sys

import torch
import transformers
from safetensors.torch import save_file
from transformers import SwitchTransformersConfig, SwitchTransformersForConditionalGeneration, T5Config, T5ForConditionalGeneration

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "goldens"))
import t5

BASE = dict(d_model=768, d_kv=64, num_layers=12, num_heads=12, decoder_start_token_id=0)
SHAPES = {
    "t5-small": T5Config(d_model=512, d_kv=64, d_ff=2048, num_layers=6, num_heads=8, decoder_start_token_id=0),
    "t5-base": T5Config(**BASE, d_ff=3072),
    "t5-v1_1-small": T5Config(
        d_model=512, d_kv=64, d_ff=1024, num_layers=8, num_heads=6, feed_forward_proj="gated-gelu", tie_word_embeddings=False, decoder_start_token_id=0
    ),
    "switch-base-8": SwitchTransformersConfig(
        **BASE, d_ff=3072, num_decoder_layers=12, num_sparse_encoder_layers=6, num_sparse_decoder_layers=6, num_experts=8, expert_capacity=64
    ),
}


def main(shape, folder):
    transformers.utils.logging.disable_progress_bar()
    torch.manual_seed(0)
    torch.set_num_threads(2)
    config = SHAPES[shape]
    cls = SwitchTransformersForConditionalGeneration if shape.startswith("switch") else T5ForConditionalGeneration
    model = cls._from_config(config, attn_implementation="eager").eval()
    folder = pathlib.Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    model.save_pretrained(folder)
    data = t5.batch([300, 37, 9], [5, 2, 11], 3, 32000, 1)
    with torch.no_grad():
        watch = t5.Watch(model)
        out, mask, decoder_mask = t5.run(model, data)
    g = {f"a.{key}": value.int() for key, value in data.items()}
    for i, h in enumerate(watch.states):
        inside = mask if i <= config.num_layers else decoder_mask
        g[f"hidden.{i}"] = h[inside]
    for i, choice in enumerate(watch.choices):
        inside = mask if i < len(watch.choices) // 2 else decoder_mask
        g[f"expert.{i}"] = choice[inside].int()
    g |= dict(loss=out.loss, logits=out.logits[decoder_mask])
    save_file({k: v.contiguous() for k, v in g.items()}, folder / "golden.safetensors")
    print(f"  {shape}: {sum(p.numel() for p in model.parameters()):,} parameters", flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
