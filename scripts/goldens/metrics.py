"""Goldens of the metrics of package task, made with scikit-learn and SciPy.

    python scripts/goldens/metrics.py

Writes task/testdata/metrics.json: predictions, labels and every metric that is
defined for them (null where the peer says NaN).
"""

import json
import os
import warnings

import numpy as np
from scipy.stats import pearsonr, spearmanr
from sklearn.metrics import accuracy_score, f1_score, matthews_corrcoef

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))


def number(x):
    x = float(x)
    return None if np.isnan(x) else x


def classes(name, p, y):
    out = dict(accuracy=number(accuracy_score(y, p)), matthews=number(matthews_corrcoef(y, p)))
    if max(*p, *y) < 2:
        out["f1"] = number(f1_score(y, p, zero_division=0))
    return dict(name=name, predictions=[int(x) for x in p], labels=[int(x) for x in y], metrics=out)


def numbers(name, p, y):
    p, y = np.float32(p), np.float32(y)
    out = dict(pearson=number(pearsonr(p.astype(float), y.astype(float))[0]), spearman=number(spearmanr(p, y)[0]))
    return dict(name=name, regression=True, predictions=[float(x) for x in p], labels=[float(x) for x in y], metrics=out)


def main():
    warnings.simplefilter("ignore")
    r = np.random.default_rng(7)
    y2, y3 = r.integers(0, 2, 60), r.integers(0, 3, 60)
    x = r.normal(size=50)
    cases = [
        classes("two classes", np.where(r.random(60) < 0.7, y2, 1 - y2), y2),
        classes("three classes", np.where(r.random(60) < 0.6, y3, r.integers(0, 3, 60)), y3),
        classes("all right", y2, y2),
        classes("all wrong", 1 - y2, y2),
        classes("constant 0", 0 * y2, y2),
        classes("constant 1", 0 * y2 + 1, y2),
        classes("one class only", y2, 0 * y2),
        classes("one example", [1], [1]),
        numbers("correlated", x + 0.5 * r.normal(size=50), x),
        numbers("ties", np.round(2 * x), np.round(x + 0.3 * r.normal(size=50))),
        numbers("monotone", np.exp(3 * x), x),
        numbers("reversed", -x, x),
        numbers("far from zero", 1e4 + x, 3e4 - 2 * x + 0.1 * r.normal(size=50)),
        numbers("constant", 0 * x + 2.5, x),
    ]
    path = os.path.join(ROOT, "task", "testdata", "metrics.json")
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "w") as f:
        json.dump(cases, f, separators=(",", ":"))
        f.write("\n")


if __name__ == "__main__":
    main()
