"""Times this project's clustering side by side with scikit-learn's KMeans.

Usage, from the repository's root:
    go build -o bin/bench-kmeans ./bench/kmeans
    python bench/peers/kmeans.py --program bin/bench-kmeans --checkpoint DIR [--large]

DIR holds MiniLM (6 blocks, 384 wide) as config.json and model.safetensors. The
matrices are its blocks' sub-MLP matrices, rows (W1_i, b1_i, W2_:,i), with a
quarter as many clusters; then two matrices of BERT-base's shape, since its
weights are not to be had here: MiniLM's blocks 0 to 3 side by side, and iid
Gaussian values; then, with --large, a random 14336×12288 one.

Every run of the peer stands between two of ours. The peer gets the thread count,
of 1 and 2, that is faster on one start. Times are medians, in seconds; the machine's
load average stands beside them. Results go to bench/results/.
"""

import argparse
import datetime
import json
import os
import re
import statistics
import subprocess
import tempfile
import time
from pathlib import Path

for name in ("OPENBLAS_CORETYPE", "OPENBLAS_L2_SIZE"):  # these would slow the peer's BLAS
    os.environ.pop(name, None)

import numpy as np
import sklearn
from safetensors.numpy import load_file
from sklearn.cluster import KMeans
from threadpoolctl import threadpool_limits


def blocks(checkpoint):
    tensors = load_file(Path(checkpoint) / "model.safetensors")
    for layer in range(6):
        name = f"encoder.layer.{layer}."
        prefix = next(k for k in tensors if k.endswith(name + "intermediate.dense.weight"))
        prefix = prefix[: -len("intermediate.dense.weight")]
        w1, b1 = tensors[prefix + "intermediate.dense.weight"], tensors[prefix + "intermediate.dense.bias"]
        w2 = tensors[prefix + "output.dense.weight"]
        yield np.concatenate([w1, b1[:, None], w2.T], axis=1).astype(np.float32)


def cpu_name():
    text = Path("/proc/cpuinfo").read_text()
    return re.search(r"model name\s*:\s*(.*)", text).group(1).strip()


class Side:
    """Both programs on one matrix."""

    def __init__(self, program, x, k):
        self.program, self.x, self.k = program, x, k
        self.file = tempfile.NamedTemporaryFile(suffix=".f32")
        x.tofile(self.file.name)

    def ours(self, algorithm, **options):
        command = [self.program, "-matrix", self.file.name, "-rows", str(len(self.x)), "-cols", str(self.x.shape[1]), "-k", str(self.k), "-algorithm", algorithm]
        for name, value in options.items():
            command += [f"-{name}", str(value)]
        return json.loads(subprocess.run(command, check=True, capture_output=True).stdout)

    def peer(self, starts, threads, seed=0):
        with threadpool_limits(threads):
            begin = time.perf_counter()
            model = KMeans(self.k, n_init=starts, random_state=seed).fit(self.x)
            return {"seconds": time.perf_counter() - begin, "inertia": float(model.inertia_), "starts": starts, "threads": threads}


def faster_threads(side):
    """Of 1 and 2 threads the faster, on one start, twice each in turn."""
    times = {1: [], 2: []}
    for seed in range(2):
        for threads in times:
            times[threads].append(side.peer(1, threads, seed)["seconds"])
    return min(times, key=lambda t: min(times[t])), times


def compare(name, side, plan, starts, threads, repeats):
    """Runs plan's entries of ours before and after each run of the peer."""
    mine = {label: [] for label, _, _ in plan}
    peer = []
    loads = []
    for repeat in range(repeats + 1):
        for label, algorithm, options in plan:
            mine[label].append(side.ours(algorithm, seed=repeat + 1, **options))
        if repeat < repeats:
            peer.append(side.peer(starts, threads, seed=repeat))
        loads.append(os.getloadavg()[0])
    result = {"matrix": name, "rows": len(side.x), "columns": side.x.shape[1], "clusters": side.k, "load": loads,
              "peer": {"starts": starts, "threads": threads, "seconds": statistics.median(r["seconds"] for r in peer),
                       "inertia": statistics.median(r["inertia"] for r in peer), "runs": peer}, "ours": {}}
    for label, runs in mine.items():
        seconds = statistics.median(s for r in runs for s in r["seconds"])
        inertia = statistics.median(r["inertia"] for r in runs)
        result["ours"][label] = {"seconds": seconds, "inertia": inertia, "runs": runs,
                                 "times_faster": result["peer"]["seconds"] / seconds,
                                 "inertia_ratio": inertia / result["peer"]["inertia"]}
    print(name, "peer", round(result["peer"]["seconds"], 2), round(result["peer"]["inertia"], 2),
          {k: (round(v["seconds"], 3), round(v["times_faster"], 1), round(v["inertia_ratio"], 4)) for k, v in result["ours"].items()}, flush=True)
    return result


def markdown(report):
    lines = [f"# Clustering against scikit-learn {report['sklearn']}", "",
             f"{report['date']}, {report['cpu']}, {report['cores']} cores (shared with other work: see the load averages in the JSON file).", "",
             report["note"], "",
             "| matrix | clusters | peer: starts, threads | peer s | peer inertia | ours | s | times faster | inertia, ours/peer |",
             "| --- | --- | --- | --- | --- | --- | --- | --- | --- |"]
    for m in report["matrices"]:
        p = m["peer"]
        for label, o in m["ours"].items():
            lines.append(f"| {m['matrix']} {m['rows']}×{m['columns']} | {m['clusters']} | {p['starts']}, {p['threads']} | {p['seconds']:.2f} | {p['inertia']:.1f} | {label} | {o['seconds']:.3f} | {o['times_faster']:.1f} | {o['inertia_ratio']:.4f} |")
    lines += ["", "Medians over MiniLM's blocks:", "", "| ours | times faster | inertia, ours/peer |", "| --- | --- | --- |"]
    for label, (speed, ratio) in report["medians"].items():
        lines.append(f"| {label} | {speed:.1f} | {ratio:.4f} |")
    if report.get("large"):
        r = report["large"]
        lines += ["", f"Random {r['rows']}×{r['columns']} matrix, {r['clusters']} clusters, `best`: {r['seconds'][0]:.0f} s, inertia {r['inertia']:.6g}, "
                      f"peak memory {r['peak_mb']:.0f} MB = {r['peak_mb'] / r['input_mb']:.2f} × the input's {r['input_mb']:.0f} MB."]
    return "\n".join(lines) + "\n"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--program", required=True)
    parser.add_argument("--checkpoint", required=True)
    parser.add_argument("--large", action="store_true")
    parser.add_argument("--blocks", type=int, default=6)
    parser.add_argument("--starts", type=int, default=30)
    parser.add_argument("--repeats", type=int, default=1)
    args = parser.parse_args()

    all_blocks = list(blocks(args.checkpoint))
    sides = [Side(args.program, x, len(x) // 4) for x in all_blocks[: args.blocks]]
    threads, tried = faster_threads(sides[0])
    print("peer's threads:", threads, tried, flush=True)
    plan = [("kmeans, 30 starts", "kmeans", {"restarts": args.starts}), ("ward", "ward", {}), ("best", "best", {}), ("best, effort 10", "best", {"effort": 10})]
    report = {"date": datetime.date.today().isoformat(), "cpu": cpu_name(), "cores": os.cpu_count(), "sklearn": sklearn.__version__,
              "threads_tried": tried, "matrices": [],
              "note": "Ours: bench/kmeans. A peer run stands between two of ours; times faster and ratios are of medians. "
                      "The BERT-base-shaped matrices are synthetic: real weights were not to be had."}
    for layer, side in enumerate(sides):
        report["matrices"].append(compare(f"MiniLM block {layer}", side, plan, args.starts, threads, args.repeats))
    report["medians"] = {
        label: [statistics.median(m["ours"][label][key] for m in report["matrices"]) for key in ("times_faster", "inertia_ratio")]
        for label, _, _ in plan}
    print("medians", report["medians"], flush=True)
    wide = np.block([[all_blocks[0], all_blocks[1]], [all_blocks[2], all_blocks[3]]])[:, :1537]
    gauss = np.random.default_rng(1).normal(size=(3072, 1537))
    for name, x in (("MiniLM blocks side by side", wide), ("iid Gaussian", gauss)):
        side = Side(args.program, np.ascontiguousarray(x, dtype=np.float32), 768)
        report["matrices"].append(compare(name, side, [("best", "best", {})], 1, threads, 3))
    if args.large:
        run = subprocess.run([args.program, "-rows", "14336", "-cols", "12288", "-k", "3584"], check=True, capture_output=True)
        report["large"] = json.loads(run.stdout)
    name = re.sub(r"[^a-z0-9]+", "-", cpu_name().lower()).strip("-")
    out = Path(__file__).resolve().parents[1] / "results" / f"{report['date']}-{name}-kmeans"
    out.parent.mkdir(exist_ok=True)
    out.with_suffix(".json").write_text(json.dumps(report, indent=1) + "\n")
    out.with_suffix(".md").write_text(markdown(report))


if __name__ == "__main__":
    main()
