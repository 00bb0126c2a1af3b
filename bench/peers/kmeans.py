"""Times scikit-learn's KMeans; the peer of bench/kmeans and its protocol.

Reads one request a line on standard input and answers on standard output; the
matrix is a file of little-endian float32, row-major:

    {"matrix": "x.f32", "rows": 1536, "cols": 769, "k": 384, "starts": 30, "threads": 1, "seed": 0}
    {"seconds": 33.1, "cpu": 32.9, "inertia": 2192.2, "version": "scikit-learn 1.9.1"}
"""

import json
import os
import sys
import time

# Some machines pin OpenBLAS to a core type for other work: the peer is to
# choose its best kernels itself. Before anything loads a BLAS.
for variable in ("OPENBLAS_CORETYPE", "OPENBLAS_L2_SIZE"):
    os.environ.pop(variable, None)

import numpy as np
import sklearn
from sklearn.cluster import KMeans
from threadpoolctl import threadpool_limits


def measure(matrix, rows, cols, k, starts, threads, seed):
    x = np.fromfile(matrix, dtype="<f4").reshape(rows, cols)
    with threadpool_limits(threads):
        start, cpu = time.perf_counter(), time.process_time()
        model = KMeans(k, n_init=starts, random_state=seed).fit(x)
        seconds, cpu = time.perf_counter() - start, time.process_time() - cpu
    return {"seconds": seconds, "cpu": cpu, "inertia": float(model.inertia_), "version": f"scikit-learn {sklearn.__version__}"}


def main():
    for line in sys.stdin:
        print(json.dumps(measure(**json.loads(line))), flush=True)


if __name__ == "__main__":
    main()
