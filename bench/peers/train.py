"""PyTorch's fine-tuning step on SST-2, timed.

    echo '{"model": "minilm", "steps": 5}' | python bench/peers/train.py

Request, with defaults: {"model": "minilm"|"bert-base"|"t5-base"|"switch"|"switch-6"|"switch-12"|PATH, "mode": "random",
"prec": "fp32"|"bf16", "threads": 2, "steps": 10, "warmup": 2, "batch": 32,
"ffn": null, "seed": 0, "attn": "best"|"sdpa"|"eager", "rows": null}
    mode    random   random batches, each padded to its longest sentence
            grouped  transformers' length-grouped sampling, the same padding;
                     batches drawn from all over an epoch
            pad128   random batches padded to 128 (run_glue's default)
            dense    rows of 128 tokens of running text, no padding
    ffn     width of every MLP (its first units): for timing
    attn    best: the faster of the two, tried for three steps of each on the
            first request that asks for the same work
    rows    the batches as lists of row numbers of train.tsv (dense: of rows of
            128 tokens), warm-up first; without it they are drawn with the seed
Answer: seconds_per_step (median), mean, all, attn; tokens_per_step (real ones),
padded_tokens_per_step (means); rows (of the timed steps), loss of the last one,
peak_rss_mb, start_rss_mb (the process with its libraries, before any model).
A step is forward (dropout as configured), loss, backward, clip_grad_norm_(1.0),
fused AdamW, zero_grad(set_to_none). Batches are padded beforehand. The model
lives on from one request to the next that has the same model and ffn; for a memory figure start a fresh process.
"""

import functools
import statistics
import time

from common import adamw, load, pad, peak_mb, reset_peak, serve, sst2, tokenize, versions

import torch
from transformers.trainer_pt_utils import LengthGroupedSampler

DENSE = 128
START_MB = peak_mb()


@functools.lru_cache(maxsize=2)
def data(model):
    sentences, labels = sst2("train")
    return tokenize(model, sentences), labels


@functools.lru_cache(maxsize=1)
def session(model, ffn):
    net = load(model, ffn).train()
    return net, adamw(net, lr=2e-5)


@functools.lru_cache(maxsize=2)
def running_text(model):
    flat = [i for row in data(model)[0] for i in row]
    return [flat[i : i + DENSE] for i in range(0, len(flat) - DENSE + 1, DENSE)]


def draw(mode, rows, batch, count, seed):
    """count batches of row numbers."""
    g = torch.Generator().manual_seed(seed)
    if mode == "grouped":
        order = list(LengthGroupedSampler(batch, lengths=[len(r) for r in rows], generator=g))
    else:
        order = torch.randperm(len(rows), generator=g).tolist()
    batches = [order[i : i + batch] for i in range(0, len(order) - batch + 1, batch)]
    if mode == "grouped":  # they come longest first
        batches = [batches[i] for i in torch.randperm(len(batches), generator=g).tolist()]
    return batches[:count]


def step(net, optimizer, prec, ids, mask, target):
    with torch.autocast("cpu", torch.bfloat16, enabled=prec == "bf16"):
        loss = net(input_ids=ids, attention_mask=mask, labels=target).loss
    loss.backward()
    torch.nn.utils.clip_grad_norm_(net.parameters(), 1.0)
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    return loss


def time_steps(net, optimizer, prec, inputs):
    times, loss = [], None
    for batch in inputs:
        start = time.perf_counter()
        loss = step(net, optimizer, prec, *batch)
        times.append(time.perf_counter() - start)
    return times, loss.item()


best_attention = {}  # by kind of work


def use_attention(net, name, key, trial):
    if name == "best":
        if key not in best_attention:
            took = {}
            for candidate in ("sdpa", "eager"):
                net.set_attn_implementation(candidate)
                took[candidate] = min(trial()[1:])
            best_attention[key] = min(took, key=took.get)
        name = best_attention[key]
    net.set_attn_implementation(name)
    return name


def handle(q):
    model, mode, prec = q.get("model", "minilm"), q.get("mode", "random"), q.get("prec", "fp32")
    steps, warmup, seed = q.get("steps", 10), q.get("warmup", 2), q.get("seed", 0)
    if mode not in ("random", "grouped", "pad128", "dense") or prec not in ("fp32", "bf16"):
        raise ValueError(f"unknown mode {mode!r} or prec {prec!r}")
    torch.set_num_threads(q.get("threads", 2))
    rows, labels = data(model)
    if mode == "dense":
        rows = running_text(model)
    net, optimizer = session(model, q.get("ffn"))
    batches = q.get("rows") or draw(mode, rows, q.get("batch", 32), warmup + steps, seed)
    if len(batches) != warmup + steps:
        raise ValueError(f"rows: expected {warmup} + {steps} batches, found {len(batches)}")

    inputs = []
    for chosen in batches:
        ids, mask = pad([rows[i] for i in chosen], DENSE if mode in ("pad128", "dense") else None)
        # Without padding PyTorch is faster when it is given no mask.
        inputs.append((ids, None if mode == "dense" else mask, torch.tensor([labels[i] for i in chosen])))

    key = (model, q.get("ffn"), mode, prec, q.get("threads", 2))
    attn = use_attention(net, q.get("attn", "best"), key, lambda: time_steps(net, optimizer, prec, inputs[:1] * 3)[0])
    reset_peak()
    times, loss = time_steps(net, optimizer, prec, inputs)
    times, timed = times[warmup:], inputs[warmup:]
    return dict(
        seconds_per_step=statistics.median(times), mean=statistics.fmean(times), all=times, attn=attn,
        tokens_per_step=statistics.fmean((i.numel() if m is None else m.sum().item()) for i, m, _ in timed),
        padded_tokens_per_step=statistics.fmean(i.numel() for i, _, _ in timed),
        rows=batches[warmup:], loss=loss, peak_rss_mb=peak_mb(), start_rss_mb=START_MB, versions=versions(),
    )  # fmt: skip


if __name__ == "__main__":
    serve(handle)
