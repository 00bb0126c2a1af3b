"""Measures torch's matrix products; the peer of bench/gemm and its protocol.

Reads one request a line on standard input and answers on standard output:

    {"shape": [425, 384, 1536], "trans": "nt", "threads": 2, "prec": "fp32", "seconds": 0.5}
    {"gflops": 71.2, "best": 73.0}

prec is fp32 or bf16, the type of the operands, or "bf16 autocast": operands of
float32, cast to bfloat16 within the measurement. A linear layer ("nt") is then
called under autocast, which keeps no cast; other products cast by themselves.
" packed" is for the other side.
"""

import json
import statistics
import sys
import time

import torch


def measure(shape, trans, threads, prec, seconds):
    torch.set_num_threads(threads)
    m, n, k = shape
    name, _, how = prec.partition(" ")
    kind = {"fp32": torch.float32, "bf16": torch.bfloat16}[name]
    cast = how == "autocast"

    def operand(rows, cols, t):
        x = torch.rand(cols, rows) if t else torch.rand(rows, cols)
        x = (x - 0.5).to(torch.float32 if cast else kind)
        return x.t() if t else x

    a = operand(m, k, trans[0] == "t")
    b = operand(k, n, trans[1] == "t")
    c = torch.empty(m, n, dtype=kind)
    # What a training step calls: a linear layer, or a product into a given matrix.
    if trans == "nt":
        weight = b.t()
        run = lambda: torch.nn.functional.linear(a, weight)
    elif cast:
        run = lambda: torch.mm(a.to(kind), b.to(kind), out=c)
    else:
        run = lambda: torch.mm(a, b, out=c)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16, enabled=cast and trans == "nt", cache_enabled=False):
        run()
        times = []
        start = time.perf_counter()
        while len(times) < 3 or time.perf_counter() - start < seconds:
            t = time.perf_counter()
            run()
            times.append(time.perf_counter() - t)
    flops = 2e-9 * m * n * k
    return {"gflops": flops / statistics.median(times), "best": flops / min(times)}


def main():
    for line in sys.stdin:
        try:
            answer = measure(**json.loads(line))
        except Exception as error:
            answer = {"error": f"{type(error).__name__}: {error}"}
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
