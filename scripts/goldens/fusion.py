"""Goldens of package fusion: numpy and PyTorch references of its methods.

Run: python scripts/goldens/fusion.py   (writes fusion/testdata/golden/; with
--check it compares instead). One file a case; whole numbers are stored as
float32 like everything else.

Every method is written here a second time, from the paper and its authors'
description, with none of the Go code's shortcuts: distances by differences,
full singular value decompositions, torch's autograd and AdamW.
"""

import numpy as np
import torch
from safetensors.torch import save_file
from scipy.cluster.hierarchy import fcluster, linkage
from scipy.optimize import linear_sum_assignment

from common import ROOT, main

F32 = np.float32


def pack(a):
    return torch.from_numpy(np.array(np.asarray(a), dtype=F32))


def flat(tree, prefix=""):
    """{"a": {"b": x}} as {"a.b": x}."""
    for key, value in tree.items():
        if isinstance(value, dict):
            yield from flat(value, f"{prefix}{key}.")
        else:
            yield prefix + key, value


def mlp(rng, p, width, gated, biased):
    scale = lambda *s: (rng.standard_normal(s) * 0.3).astype(F32)
    m = {"up": scale(width, p), "down": scale(p, width)}
    if gated:
        m["gate"] = scale(width, p)
    if biased:
        m["up_bias"], m["down_bias"] = scale(width), scale(p)
    # Two units alike, one zero: the cases with ties.
    m["up"][1], m["down"][:, 1] = m["up"][0], m["down"][:, 0]
    m["up"][2], m["down"][:, 2] = 0, 0
    return m


def hidden(m, x, act):
    """What the down projection reads."""
    t = {k: torch.from_numpy(np.asarray(v, dtype=np.float64)) for k, v in m.items()}
    x = torch.from_numpy(x.astype(np.float64))
    f = {"gelu": torch.nn.functional.gelu, "silu": torch.nn.functional.silu, "relu": torch.relu}[act]
    u = x @ t["up"].T + t.get("up_bias", 0)
    return f(x @ t["gate"].T) * u if "gate" in t else f(u)


def forward(m, x, scale=1.0, act="gelu"):
    t = {k: torch.from_numpy(np.asarray(v, dtype=np.float64)) for k, v in m.items()}
    return (hidden(m, x, act) * torch.as_tensor(scale)) @ t["down"].T + t.get("down_bias", 0)


def cut(w, t):
    u, s, v = np.linalg.svd(w.astype(np.float64))
    return (u[:, :t] * s[:t]) @ v[:t], s


def mmd_kernels(x, y):
    z = torch.cat([x, y])
    d = torch.cdist(z, z, compute_mode="donot_use_mm_for_euclid_dist")
    n = len(z)
    h = d.detach().sum() / (n * n - n) / 4
    return sum(torch.exp(-d / (h * 2**i)) for i in range(5))


def mmd(rows, first, steps, dtype):
    """The losses, rows before and gradients of every step."""
    x = torch.from_numpy(rows).to(dtype)
    y = torch.nn.Parameter(torch.from_numpy(first).to(dtype))
    opt = torch.optim.AdamW([y], lr=1e-2)
    losses, path, grads = [], [], []
    for _ in range(steps):
        opt.zero_grad()
        k = mmd_kernels(x, y)
        n = len(x)
        loss = k[:n, :n].mean() - 2 * k[:n, n:].mean() + k[n:, n:].mean()
        losses.append(loss.item())
        path.append(y.detach().double().numpy().copy())
        loss.backward()
        grads.append(y.grad.double().numpy().copy())
        opt.step()
    return np.array(losses), path, grads, y.detach().double().numpy()


def case(seed, p, width, c, gated, biased, act):
    rng = np.random.default_rng(seed)
    m = mlp(rng, p, width, gated, biased)
    x = rng.standard_normal((7, p)).astype(F32)
    out = {"shape": pack([p, width, c]), "weights": {k: pack(v) for k, v in m.items()}, "x": pack(x)}
    out["y"] = pack(forward(m, x, act=act))
    with_units = lambda **new: {**m, **new}

    # Sub-MLP matrix, in the order of the Go package.
    order = (["gate"] if gated else []) + ["up"]
    rows = np.concatenate([m[k] for k in order] + ([m["up_bias"][:, None]] if biased else []) + [m["down"].T], 1)
    out["rows"] = pack(rows)
    matrices = (["gate"] if gated else []) + ["up", "down"]

    # sketch, given S
    s = (rng.standard_normal((c, width)) / np.sqrt(c)).astype(F32)
    sm = {k: s.astype(np.float64) @ m[k] for k in order}
    sm["down"] = m["down"] @ s.T.astype(np.float64)
    if biased:
        sm["up_bias"] = s.astype(np.float64) @ m["up_bias"]
    out["sketch"] = {"s": pack(s), "y": pack(forward(with_units(**sm), x, act=act))}

    # svd
    t = max(1, c * p // (p + width))
    cuts = {k: cut(m[k], t) for k in matrices}
    out["svd"] = {
        "rank": pack([t]),
        "values": {k: pack(v[1]) for k, v in cuts.items()},
        "y": pack(forward(with_units(**{k: v[0] for k, v in cuts.items()}), x, act=act)),
    }

    # prune
    norm = lambda k: np.linalg.norm(m[k].astype(np.float64), axis=0 if k == "down" else 1)
    score = np.prod([norm(k) for k in matrices], axis=0)
    keep = np.sort(np.argsort(-score, kind="stable")[:c])
    pruned = {k: (m[k][:, keep] if k == "down" else m[k][keep]) for k in m if k != "down_bias"}
    out["prune"] = {"units": pack(keep), "y": pack(forward(with_units(**pruned), x, act=act))}

    # magnitude, to the parameter count of c units with their biases
    left = c * rows.shape[1] - (width if biased else 0)
    sizes = np.concatenate([np.abs(m[k]).ravel() for k in matrices])
    kept = np.zeros(len(sizes), bool)
    kept[np.argsort(-sizes, kind="stable")[:left]] = True
    masked, at = {}, 0
    for k in matrices:
        n = m[k].size
        masked[k] = np.where(kept[at : at + n].reshape(m[k].shape), m[k], 0)
        at += n
    out["magnitude"] = {"left": pack([left]), "y": pack(forward(with_units(**masked), x, act=act))}

    # fusion and cluster, given an assignment
    assign = rng.permutation(np.concatenate([np.arange(c), rng.integers(0, c, width - c)]))
    count = np.bincount(assign, minlength=c)
    centre = np.stack([rows[assign == k].astype(np.float64).mean(0) for k in range(c)])

    def split(z):
        new, at = {}, 0
        for k in order + (["up_bias"] if biased else []) + ["down"]:
            n = 1 if k == "up_bias" else p
            new[k] = z[:, at] if k == "up_bias" else z[:, at : at + n]
            at += n
        new["down"] = new["down"].T
        return with_units(**new)

    out["fusion"] = {
        "assign": pack(assign),
        "inertia": pack([((rows - centre[assign]) ** 2).sum()]),
        "total": pack([((rows - rows.astype(np.float64).mean(0)) ** 2).sum()]),
        "y": pack(forward(split(centre), x, scale=count.astype(np.float64), act=act)),
        "cluster_y": pack(forward(split(centre * np.sqrt(count)[:, None]), x, act=act)),
    }

    # mmd, given the start rows. The kernels have a cusp where rows meet and
    # Adam divides by small gradients, so rounding grows along the way: how much
    # is measured, on float32 and on float64 starts a float32 rounding away.
    start = rng.permutation(width)[:c]
    losses, path, grads, y = mmd(rows, rows[start], 100, torch.float64)
    gap = np.abs(mmd(rows, rows[start], 100, torch.float32)[0] - losses) / losses
    for _ in range(20):
        near = rows[start].astype(np.float64)
        near = near * (1 + 1e-7 * rng.standard_normal(near.shape))
        gap = np.maximum(gap, np.abs(mmd(rows, near, 100, torch.float64)[0] - losses) / losses)
    print(f"mmd seed {seed}: losses {losses[0]:.6f} … {losses[-1]:.6f}; rounding moves them by up to {gap.max():.1e} relative")
    gap = np.maximum.accumulate(gap)
    at = [0, 1, 30, 99]
    steps = {str(i): {"rows": pack(path[i]), "grad": pack(grads[i])} for i in at}
    mm = split(y * np.sqrt(width / c))
    if biased:
        mm["down_bias"] = m["down_bias"] * np.sqrt(width / c)
    # wanda and flap on x: arXiv 2312.11983, its baseline "Wanda-sp" and its metric WIFV
    h = hidden(m, x, act).numpy()
    w2 = m["down"].astype(np.float64)
    for method, score in {
        "wanda": (np.abs(w2) * np.sqrt((h**2).sum(0))).mean(0),
        "flap": h.var(0, ddof=1) * (w2**2).sum(0),
    }.items():
        keep = np.sort(np.argsort(-score, kind="stable")[:c])
        kept = {k: (m[k][:, keep] if k == "down" else m[k][keep]) for k in m if k != "down_bias"}
        if method == "flap":
            away = np.setdiff1d(np.arange(width), keep)
            kept["down_bias"] = h[:, away].mean(0) @ w2[:, away].T + m.get("down_bias", 0)
        out[method] = {"units": pack(keep), "y": pack(forward(with_units(**kept), x, act=act))}

    out["mmd"] = {"start": pack(start), "losses": pack(losses), "gap": pack(gap), "step": steps, "rows": pack(y), "y": pack(forward(mm, x, act=act))}
    return out


def mixture(seed, p, width, experts, tokens, keep, c):
    """Switch experts, compressed together: what MC-SMoE, HC-SMoE and shared units make of them."""
    rng = np.random.default_rng(seed)
    root = mlp(rng, p, width, False, False)
    # Experts of one origin, with units in another order: as training leaves them, and harder.
    order = [rng.permutation(width) for _ in range(experts)]
    noise = lambda a: (a + 0.1 * rng.standard_normal(a.shape)).astype(F32)
    ms = [{"up": noise(root["up"][o]), "down": noise(root["down"][:, o])} for o in order]
    router = rng.standard_normal((experts, p)).astype(F32)
    x = rng.standard_normal((tokens, p)).astype(F32)
    logits = x.astype(np.float64) @ router.T.astype(np.float64)
    choice = logits.argmax(1)
    usage = np.bincount(choice, minlength=experts)
    rows = [np.concatenate([m["up"], m["down"].T], 1).astype(np.float64) for m in ms]
    names = lambda of: np.array([list(dict.fromkeys(of)).index(g) for g in of])

    # MC-SMoE: arXiv 2310.01334, section 3.2
    like = (logits.T @ logits) / np.outer(*[np.linalg.norm(logits, axis=0)] * 2)
    dominant = np.sort(np.argsort(-usage, kind="stable")[:keep])
    mc = names([e if e in dominant else dominant[like[e, dominant].argmax()] for e in range(experts)])

    # HC-SMoE: arXiv 2410.08589, section 3.2
    mean = np.stack([forward(m, x, act="relu").numpy().mean(0) for m in ms])
    hc = names(fcluster(linkage(mean, "average"), keep, "maxclust"))

    def merged(of, aligned):
        out = []
        for g in range(keep):
            members = np.flatnonzero(of == g)
            lead = members[usage[members].argmax()]
            share = usage[members] / usage[members].sum()
            match = lambda e: linear_sum_assignment(rows[lead] @ rows[e].T, maximize=True)[1] if aligned else np.arange(width)
            z = sum(w * rows[e][match(e)] for e, w in zip(members, share))
            out.append({"up": z[:, :p], "down": z[:, p:].T})
        return np.stack([forward(out[g], x, act="relu").numpy() for g in of])

    # Shared units: Ward's clustering of all.
    every = np.concatenate(rows)
    assign = fcluster(linkage(every, "ward"), c, "maxclust") - 1
    centre = np.stack([every[assign == k].mean(0) for k in range(c)])
    counts = np.stack([np.bincount(assign[e * width : (e + 1) * width], minlength=c) for e in range(experts)])
    shared = {"up": centre[:, :p], "down": centre[:, p:].T}

    return {
        "shape": pack([p, width, experts, keep, c]),
        "up": pack([m["up"] for m in ms]),
        "down": pack([m["down"] for m in ms]),
        "router": pack(router),
        "x": pack(x),
        "usage": pack(usage),
        "order": pack(linear_sum_assignment(rows[0] @ rows[1].T, maximize=True)[1]),
        "mc": {"of": pack(mc), "y": pack(merged(mc, True))},
        "hc": {"of": pack(hc), "y": pack(merged(hc, False))},
        "shared": {
            "inertia": pack([((every - centre[assign]) ** 2).sum()]),
            "used": pack((counts > 0).sum(1)),
            "y": pack(np.stack([forward(shared, x, scale=n.astype(np.float64), act="relu").numpy() for n in counts])),
        },
    }


def write(out):
    torch.set_num_threads(1)
    out.mkdir(parents=True, exist_ok=True)
    cases = {
        "plain": (1, 8, 32, 10, False, True, "gelu"),
        "gated": (2, 6, 20, 7, True, False, "silu"),
        "expert": (3, 8, 24, 6, False, False, "relu"),
    }
    for name, args in cases.items():
        save_file(dict(flat(case(*args))), out / f"{name}.safetensors")
    save_file(dict(flat(mixture(4, 8, 12, 6, 200, 3, 20))), out / "mixture.safetensors")


if __name__ == "__main__":
    main(write, ROOT / "fusion" / "testdata" / "golden")
