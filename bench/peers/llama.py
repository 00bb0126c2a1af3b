"""llama.cpp's prompt and greedy generation of one text, timed.

    python bench/peers/llama.py FOLDER

FOLDER has the model as fp32.gguf, bf16.gguf and int8.gguf (Q8_0), see
scripts/bench-decoder.sh. Request: {"what": "generate", "prec": "fp32"|"bf16"|"int8",
"threads": 2, "texts": [[ids]], "tokens": 64}. Answer: {"seconds", "prompt_seconds",
"written", "peak_rss_mb"}.
"""

import functools
import json
import pathlib
import sys
import time

import llama_cpp
import numpy as np


@functools.lru_cache(maxsize=1)
def load(prec, threads):
    path = pathlib.Path(sys.argv[1]) / f"{prec}.gguf"
    return llama_cpp.Llama(str(path), n_ctx=1024, n_batch=1024, n_ubatch=512, n_threads=threads, n_threads_batch=threads, verbose=False)


def handle(q):
    llm = load(q["prec"], q["threads"])
    (prompt,) = q["texts"]
    logits = lambda: np.ctypeslib.as_array(llama_cpp.llama_get_logits(llm.ctx), shape=(llm.n_vocab(),))  # of the last token
    llm.reset()
    llm._ctx.kv_cache_clear()
    start = time.perf_counter()
    llm.eval(prompt)
    written = [int(logits().argmax())]
    first = time.perf_counter() - start
    while len(written) < q["tokens"]:
        llm.eval(written[-1:])
        written.append(int(logits().argmax()))
    return dict(seconds=time.perf_counter() - start, prompt_seconds=first, written=[written], peak_rss_mb=peak_mb())


def peak_mb():
    return int(pathlib.Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0]) / 1024


for line in sys.stdin:
    print(json.dumps(handle(json.loads(line))), flush=True)
