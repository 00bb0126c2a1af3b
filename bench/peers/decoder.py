"""transformers' training step, perplexity and greedy generation of a decoder, timed.

    python bench/peers/decoder.py

Request: {"what": "step"|"adapt"|"perplexity"|"generate", "prec": "fp32"|"bf16", "threads": 2,
"texts": [[ids], …], "tokens": 64, "compile": false}. A step is on all texts as one
batch, padded on the right and masked, loss on every token, fused AdamW; with bf16
under autocast. Perplexity reads each text by itself. Generation pads on the left, and
its weights are bfloat16 with bf16. adapt is a step of PEFT's LoRA, rank 16 on
all linear layers, on a model whose weights are bfloat16 with bf16. Attention is sdpa; with compile the model goes
through torch.compile. Answer: {"seconds", "loss", "written", "peak_rss_mb"}.

MLPFUSION_SMOLLM2 names the model's directory.
"""

import functools
import os
import time

from common import adamw, pad, peak_mb, serve, versions

import torch
from transformers import AutoModelForCausalLM


@functools.lru_cache(maxsize=1)
def session(kind, dtype, compiled):
    net = AutoModelForCausalLM.from_pretrained(os.environ["MLPFUSION_SMOLLM2"], dtype=dtype, attn_implementation="sdpa")
    if kind != "step":
        return net.eval(), None
    net.train()
    optimizer = adamw(net, lr=2e-5)
    return (torch.compile(net, dynamic=True) if compiled else net), optimizer


@functools.lru_cache(maxsize=1)
def adapted(dtype):
    from peft import LoraConfig, get_peft_model

    net = AutoModelForCausalLM.from_pretrained(os.environ["MLPFUSION_SMOLLM2"], dtype=dtype, attn_implementation="sdpa")
    net = get_peft_model(net, LoraConfig(task_type="CAUSAL_LM", r=16, lora_alpha=32, target_modules="all-linear"))
    net.train()
    return net, adamw(net, lr=2e-5)


def step(q):
    if q["what"] == "adapt":
        net, optimizer = adapted(torch.float32 if q["prec"] == "fp32" else torch.bfloat16)
    else:
        net, optimizer = session("step", torch.float32, q.get("compile", False))
    ids, mask = pad(q["texts"])
    if mask.all():  # without padding PyTorch is faster when it is given no mask
        mask, labels = None, ids
    else:
        labels = torch.where(mask == 1, ids, -100)
    start = time.perf_counter()
    with torch.autocast("cpu", torch.bfloat16, enabled=q["what"] == "step" and q["prec"] == "bf16"):
        loss = net(input_ids=ids, attention_mask=mask, labels=labels, use_cache=False).loss
    loss.backward()
    torch.nn.utils.clip_grad_norm_(net.parameters(), 1.0)
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    return dict(seconds=time.perf_counter() - start, loss=loss.item())


@torch.no_grad()
def perplexity(q):
    net, _ = session("eval", torch.float32, False)
    total, count, start = 0.0, 0, time.perf_counter()
    for text in q["texts"]:
        ids = torch.tensor([text])
        with torch.autocast("cpu", torch.bfloat16, enabled=q["prec"] == "bf16"):
            total += net(input_ids=ids, labels=ids, use_cache=False).loss.item() * (len(text) - 1)
        count += len(text) - 1
    return dict(seconds=time.perf_counter() - start, loss=total / count)


def generate(q):
    net, _ = session("generate", torch.float32 if q["prec"] == "fp32" else torch.bfloat16, False)
    ids, mask = pad([text[::-1] for text in q["texts"]])
    ids, mask = ids.flip(1), mask.flip(1)
    start = time.perf_counter()
    out = net.generate(ids, attention_mask=mask, max_new_tokens=q["tokens"], do_sample=False, eos_token_id=None, pad_token_id=0)
    return dict(seconds=time.perf_counter() - start, written=out[:, ids.shape[1] :].tolist())


def handle(q):
    torch.set_num_threads(q["threads"])
    answer = {"step": step, "adapt": step, "perplexity": perplexity, "generate": generate}[q["what"]](q)
    return answer | dict(peak_rss_mb=peak_mb(), versions=versions())


if __name__ == "__main__":
    serve(handle)
