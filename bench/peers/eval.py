"""Evaluation of the SST-2 dev sentences (872), timed: PyTorch and ONNX Runtime.

    echo '{"engine": "torch", "model": "minilm"}' | python bench/peers/eval.py

Request, with defaults: {"engine": "torch"|"onnx", "model": "minilm"|"bert-base"|PATH,
"order": "file"|"sorted", "prec": "fp32", "threads": 2, "batch": 32, "repeat": 3,
"limit": null, "cache": DIR, "attn": "sdpa"}
    order   sorted: by length, so that batches hold little padding
    limit   the first sentences only
    cache   for onnx: the folder where the exported graphs are kept
Answer: sentences_per_second (median), all, tokens, padded_tokens, logits_sum (of
the file's order, to compare engines), accuracy (of no meaning with a new head),
peak_rss_mb, start_rss_mb, versions. Sentences are tokenized and padded beforehand
and run once before the clock starts. ONNX Runtime has its graph optimisations at
their highest, on the exported graph and on the one that its transformer optimizer
fuses (attention, embeddings, GELU, skip layer norm): the faster of the two is used.
"""

import functools
import pathlib
import statistics
import time
import warnings

from common import load, pad, peak_mb, reset_peak, serve, sst2, tokenize, versions

import onnxruntime
import torch

START_MB = peak_mb()


@functools.lru_cache(maxsize=2)
def data(model):
    sentences, labels = sst2("dev")
    return tokenize(model, sentences), labels


@functools.lru_cache(maxsize=1)
def torch_model(model, attn):
    return load(model, attn=attn).eval()


class Logits(torch.nn.Module):
    """Two inputs and one output, as the graph shall have."""

    def __init__(self, net):
        super().__init__()
        self.net = net

    def forward(self, input_ids, attention_mask):
        return self.net(input_ids=input_ids, attention_mask=attention_mask).logits


def exported(model, cache):
    """Paths of the plain graph and of the one fused by ONNX Runtime's own optimizer,
    which knows the attention in what the TorchScript exporter makes of eager
    attention, not in what the newer exporter makes."""
    cache = pathlib.Path(cache)
    cache.mkdir(parents=True, exist_ok=True)
    stem = f"{model.strip('/').replace('/', '_')}-torch{torch.__version__}-ort{onnxruntime.__version__}"
    plain, fused = cache / f"{stem}.onnx", cache / f"{stem}-fused.onnx"
    if not plain.exists():
        net = load(model, attn="eager").eval()
        ids, mask = pad([[5] * 7, [6] * 9])
        axes = {name: {0: "batch", 1: "length"} for name in ("input_ids", "attention_mask")}
        part = plain.with_suffix(".part")
        with warnings.catch_warnings():  # that this exporter is the older one
            warnings.simplefilter("ignore")
            torch.onnx.export(Logits(net), (ids, mask), str(part), dynamo=False, opset_version=17, input_names=list(axes), output_names=["logits"], dynamic_axes=axes)
        part.rename(plain)
    if not fused.exists():
        from onnxruntime.transformers import optimizer

        config = load(model, attn="eager").config
        graph = optimizer.optimize_model(str(plain), "bert", num_heads=config.num_attention_heads, hidden_size=config.hidden_size, opt_level=0)
        counts = graph.get_fused_operator_statistics()
        if not counts["Attention"]:
            raise RuntimeError(f"onnxruntime's optimizer found no attention: {counts}")
        part = fused.with_suffix(".part")
        graph.save_model_to_file(str(part))
        part.rename(fused)
    return [plain, fused]


@functools.lru_cache(maxsize=2)
def onnx_sessions(model, cache, threads):
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    return {p.name: onnxruntime.InferenceSession(str(p), options, providers=["CPUExecutionProvider"]) for p in exported(model, cache)}


def runners(q):
    """By name, functions from (ids, mask) to logits."""
    model, threads = q.get("model", "minilm"), q.get("threads", 2)
    if q["engine"] == "torch":
        torch.set_num_threads(threads)
        net = torch_model(model, q.get("attn", "sdpa"))

        def run(ids, mask):
            with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16, enabled=q.get("prec") == "bf16"):
                return net(input_ids=ids, attention_mask=mask).logits.float()

        return {"torch": run}
    if q["engine"] != "onnx" or q.get("prec", "fp32") != "fp32":
        raise ValueError(f"unknown engine {q['engine']!r} or prec {q.get('prec')!r}")

    def runner(session):
        return lambda ids, mask: torch.from_numpy(session.run(["logits"], {"input_ids": ids.numpy(), "attention_mask": mask.numpy()})[0])

    return {name: runner(session) for name, session in onnx_sessions(model, q["cache"], threads).items()}


best_graph = {}  # by kind of work


def handle(q):
    rows, labels = data(q.get("model", "minilm"))
    order = range(len(rows))[: q.get("limit")]
    if q.get("order") == "sorted":
        order = sorted(order, key=lambda i: len(rows[i]))
    size = q.get("batch", 32)
    batches = [order[i : i + size] for i in range(0, len(order), size)]
    inputs = [pad([rows[i] for i in b]) for b in batches]

    def timed(run):
        start = time.perf_counter()
        logits = torch.cat([run(*x) for x in inputs])
        return time.perf_counter() - start, logits

    candidates = runners(q)
    key = (q.get("model"), q["engine"], q.get("threads"), q.get("order"), size)
    if key not in best_graph:
        took = {name: min(timed(run)[0] for _ in range(2)) for name, run in candidates.items()}
        best_graph[key] = min(took, key=took.get)
    run = candidates[best_graph[key]]
    reset_peak()
    timed(run)
    results = [timed(run) for _ in range(q.get("repeat", 3))]
    speeds = [len(order) / seconds for seconds, _ in results]
    logits = results[-1][1]
    hits = logits.argmax(1) == torch.tensor([labels[i] for i in order])
    return dict(
        sentences_per_second=statistics.median(speeds), all=speeds, graph=best_graph[key],
        tokens=sum(len(rows[i]) for i in order), padded_tokens=sum(ids.numel() for ids, _ in inputs),
        logits_sum=logits.double().sum(0).tolist(), accuracy=hits.double().mean().item(),
        peak_rss_mb=peak_mb(), start_rss_mb=START_MB, versions=versions(onnxruntime),
    )  # fmt: skip


if __name__ == "__main__":
    serve(handle)
