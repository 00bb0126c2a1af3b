"""transformers' greedy generate with a GPT-2 at its real shape, timed.

    python bench/peers/generate.py DIR

Saves a GPT-2 of random weights (12 layers, 12 heads, 768, 3072, 50257 words) in
DIR. Request: {"prompts": [[ids], …], "tokens": 32, "prec": "fp32"|"bf16",
"threads": 2}; prompts of one length. Answer: {"seconds", "tokens": [[ids], …]}.
"""

import functools
import sys
import time

from common import serve

import torch
from transformers import GPT2Config, GPT2LMHeadModel

torch.manual_seed(1)
GPT2LMHeadModel(GPT2Config()).save_pretrained(sys.argv[1])


@functools.lru_cache
def model(prec):
    return GPT2LMHeadModel.from_pretrained(sys.argv[1], dtype=torch.float32 if prec == "fp32" else torch.bfloat16).eval()


def handle(q):
    torch.set_num_threads(q["threads"])
    net, ids = model(q["prec"]), torch.tensor(q["prompts"])
    start = time.perf_counter()
    out = net.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=q["tokens"], do_sample=False, eos_token_id=None, pad_token_id=0)
    return {"seconds": time.perf_counter() - start, "tokens": out[:, ids.shape[1] :].tolist()}


serve(handle)
