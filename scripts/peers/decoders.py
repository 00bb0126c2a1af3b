"""Computes with transformers what a real language model makes of 700 random words,
beyond the length of its windows:

    python scripts/peers/decoders.py MODEL FILE.safetensors

ids, targets (the next id, −1 at the end), hidden.0 … hidden.L, the loss, and the greedy
text after the first 20 words.
"""

import sys

import torch
from safetensors.torch import save_file
from transformers import AutoModelForCausalLM

model = AutoModelForCausalLM.from_pretrained(sys.argv[1], dtype=torch.float32, attn_implementation="eager").eval()
ids = torch.randint(10, 40000, (700,), generator=torch.Generator().manual_seed(3))
with torch.no_grad():
    out = model(input_ids=ids[None], labels=ids[None], output_hidden_states=True)
    text = model.generate(ids[None, :20], max_new_tokens=24, do_sample=False, eos_token_id=None, pad_token_id=0)[0, 20:]
tensors = {f"hidden.{i}": h[0] for i, h in enumerate(out.hidden_states)}
tensors |= dict(ids=ids.int(), targets=torch.cat([ids[1:], torch.tensor([-1])]).int(), loss=out.loss, text=text.int())
save_file(tensors, sys.argv[2])
