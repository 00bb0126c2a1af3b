"""Writes kmeans/testdata/golden.json: what scikit-learn and scipy make of small matrices.

Usage: python scripts/goldens/kmeans.py
"""

import json
from pathlib import Path

import numpy as np
from scipy.cluster.hierarchy import linkage
from sklearn.cluster import KMeans
from sklearn.metrics import silhouette_samples


def case(name, x, k, rng):
    x = x.astype(np.float32)
    n = len(x)
    wide = x.astype(np.float64)
    start = rng.choice(n, k, replace=False)
    lloyd = KMeans(k, init=wide[start], n_init=1, tol=0, algorithm="lloyd").fit(wide)
    loose = KMeans(k, init=wide[start], n_init=1, tol=0.05, algorithm="lloyd").fit(wide)
    # Ward's costs: half the squared heights.
    heights = linkage(wide, "ward")[:, 2]
    return {
        "name": name, "n": n, "d": x.shape[1], "k": k,
        "x": [float(f"{v:.9g}") for v in x.ravel()],
        "start": start.tolist(),
        "lloyd": {"assign": lloyd.labels_.tolist(), "inertia": lloyd.inertia_, "passes": lloyd.n_iter_},
        "loose": {"assign": loose.labels_.tolist(), "passes": loose.n_iter_},
        "ward_costs": (heights**2 / 2).tolist(),
        "silhouette": silhouette_samples(wide, lloyd.labels_).tolist(),
    }


def main():
    rng = np.random.default_rng(7)
    centres = rng.normal(size=(6, 5))
    blobs = centres[rng.integers(0, 6, 60)] + 0.4 * rng.normal(size=(60, 5))
    wide = rng.normal(size=(40, 24)) * np.geomspace(2, 0.1, 24)
    cases = [
        case("blobs", blobs, 6, rng),
        case("wide, four rows a cluster", wide, 10, rng),
        case("far from the origin", blobs[:30] + 500, 4, rng),
    ]
    out = Path(__file__).resolve().parents[2] / "kmeans" / "testdata" / "golden.json"
    out.parent.mkdir(exist_ok=True)
    out.write_text("[\n" + ",\n".join(json.dumps(c) for c in cases) + "\n]\n")


if __name__ == "__main__":
    main()
