"""PyTorch's training step of a GPT-2 on texts behind prompts, timed.

    python bench/peers/gpt2.py

Request: {"layers": 6|12, "prec": "fp32"|"bf16", "threads": 2,
"batches": [[{"ids": [...], "targets": [...]}, ...], ...]}: for each sequence what
the model reads and the id to be predicted at each of its tokens, -1: none.
Weights are random, at GPT-2's shape (12 heads, 768, 3072, 50257 words, 1024
positions). A batch is padded on the right to its longest sequence and masked, as
transformers' collators do; loss, clipping and AdamW are train.py's. Answer: as
train.py's.
"""

import functools
import statistics
import time

from common import adamw, peak_mb, reset_peak, serve, versions

import torch
from transformers import GPT2Config, GPT2LMHeadModel


@functools.lru_cache(maxsize=1)
def session(layers):
    torch.manual_seed(1)
    net = GPT2LMHeadModel(GPT2Config(n_layer=layers)).train()
    return net, adamw(net, lr=2e-5)


def padded(batch):
    """Ids, mask, and labels as transformers shifts them: the label of a token is
    what the one before it predicts."""
    longest = 1 + max(len(s["ids"]) for s in batch)
    ids = torch.full((len(batch), longest), 50256)
    mask = torch.zeros(len(batch), longest, dtype=torch.long)
    labels = torch.full((len(batch), longest), -100)
    for i, s in enumerate(batch):
        n = len(s["ids"])
        ids[i, :n], mask[i, :n] = torch.tensor(s["ids"]), 1
        targets = torch.tensor(s["targets"])
        labels[i, 1 : n + 1] = torch.where(targets < 0, -100, targets)
        ids[i, n], mask[i, n] = targets[-1], 1  # a label's token is read too
    return ids, mask, labels


def step(net, optimizer, prec, ids, mask, labels):
    with torch.autocast("cpu", torch.bfloat16, enabled=prec == "bf16"):
        loss = net(input_ids=ids, attention_mask=mask, labels=labels).loss
    loss.backward()
    torch.nn.utils.clip_grad_norm_(net.parameters(), 1.0)
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    return loss


def handle(q):
    torch.set_num_threads(q["threads"])
    net, optimizer = session(q["layers"])
    inputs = [padded(batch) for batch in q["batches"]]
    reset_peak()
    times, losses = [], []
    for batch in inputs:
        start = time.perf_counter()
        losses.append(step(net, optimizer, q["prec"], *batch).item())
        times.append(time.perf_counter() - start)
    return dict(
        seconds_per_step=statistics.median(times), all=times, loss=losses[-1],
        tokens_per_step=statistics.fmean(m.sum().item() for _, m, _ in inputs),
        padded_tokens_per_step=statistics.fmean(i.numel() for i, _, _ in inputs), peak_rss_mb=peak_mb(), versions=versions(),
    )  # fmt: skip


if __name__ == "__main__":
    serve(handle)
