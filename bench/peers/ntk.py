"""Neural tangent kernels of one MLP block by PyTorch, as the paper's authors
compute them: one autograd pass an example, gradients stacked, then one product.

    echo '{"n": 109}' | python bench/peers/ntk.py

Request, with defaults: {"model": "minilm"|"bert-base"|PATH, "n": 872,
"kernel": "adam"|"sgd", "block": 0, "threads": 2}. The examples are the first n of
SST-2's dev set. Answer: seconds, of which gradients, and product;
cpu_seconds of all threads; trace of the kernel; peak_rss_mb, start_rss_mb (the process with its libraries).
Only the block's parameters ask for gradients, so a pass computes no others; the
stacked gradients are allocated once and filled in place.
"""

import functools
import time

from common import load, peak_mb, reset_peak, serve, sst2, tokenize, versions

import torch

START_MB = peak_mb()


@functools.lru_cache(maxsize=1)
def session(model):
    return load(model).eval(), [torch.tensor([row]) for row in tokenize(model, sst2("dev")[0])]


def handle(q):
    kind, n, block = q.get("kernel", "adam"), q.get("n", 872), q.get("block", 0)
    if kind not in ("adam", "sgd"):
        raise ValueError(f"unknown kernel {kind!r}")
    torch.set_num_threads(q.get("threads", 2))
    net, rows = session(q.get("model", "minilm"))
    layer = net.base_model.encoder.layer[block]
    net.requires_grad_(False)
    parameters = [p for m in (layer.intermediate.dense, layer.output.dense) for p in (m.weight, m.bias)]
    for p in parameters:
        p.requires_grad_(True)

    reset_peak()
    start, cpu = time.perf_counter(), time.process_time()
    g = torch.empty(n, sum(p.numel() for p in parameters))
    for i, ids in enumerate(rows[:n]):
        f = net(input_ids=ids).logits[0].softmax(-1)[0]
        torch.cat([x.flatten() for x in torch.autograd.grad(f, parameters)], out=g[i])
    built = time.perf_counter()
    with torch.no_grad():
        k = g @ (g.sign() if kind == "adam" else g).T
    end = time.perf_counter()
    return dict(
        seconds=end - start, gradients=built - start, product=end - built, cpu_seconds=time.process_time() - cpu,
        trace=k.trace().item(), peak_rss_mb=peak_mb(), start_rss_mb=START_MB, versions=versions(),
    )  # fmt: skip


if __name__ == "__main__":
    serve(handle)
