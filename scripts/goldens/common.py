"""What the golden scripts share: how a folder of goldens is written, or checked
against the one that is committed."""

import argparse
import json
import pathlib
import shutil
import sys
import tempfile

from safetensors import safe_open

ROOT = pathlib.Path(__file__).resolve().parents[2]


def main(write, out, names=None):
    """Runs write(folder) on the folder out, or with --check on a temporary one
    that must then hold what out holds: the same files, the same text, and
    tensors within 1e-5 of each tensor's largest value (another CPU sums in
    another order; ten training steps carry that on). names are the folders in
    out that the script writes, where it is not all of them."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--check", action="store_true", help="write nothing; exit 1 when the committed goldens differ")
    if not parser.parse_args().check:
        for old in [out / name for name in names] if names else [out]:
            shutil.rmtree(old, ignore_errors=True)
        write(out)
        return
    with tempfile.TemporaryDirectory() as tmp:
        fresh = pathlib.Path(tmp)
        write(fresh)
        wrong = differences(fresh, out, names)
    for line in wrong:
        print(line, file=sys.stderr)
    sys.exit(1 if wrong else 0)


def differences(fresh, committed, folders=None):
    names = {p.relative_to(d) for d in (fresh, committed) for p in d.rglob("*") if p.is_file()}
    wrong = []
    for name in sorted(n for n in names if not folders or n.parts[0] in folders):
        a, b = fresh / name, committed / name
        if not (a.exists() and b.exists()):
            wrong.append(f"{name}: only in the {'fresh' if a.exists() else 'committed'} goldens")
        elif name.suffix == ".safetensors":
            wrong += [f"{name}: {what}" for what in tensor_differences(a, b)]
        elif name.name == "config.json":
            if config(a) != config(b):
                wrong.append(f"{name}: differs")
        elif a.read_bytes() != b.read_bytes():
            wrong.append(f"{name}: differs")
    return wrong


def config(path):
    """config.json without the version of the library that wrote it."""
    values = json.loads(path.read_text())
    values.pop("transformers_version", None)
    return values


def tensor_differences(a, b):
    with safe_open(a, "pt") as fa, safe_open(b, "pt") as fb:
        if set(fa.keys()) != set(fb.keys()):
            yield f"other tensors: {sorted(set(fa.keys()) ^ set(fb.keys()))}"
            return
        for key in fa.keys():
            x, y = fa.get_tensor(key), fb.get_tensor(key)
            if x.shape != y.shape or x.dtype != y.dtype:
                yield f"{key}: another shape or type"
            elif x.numel() and (x.double() - y.double()).abs().max() > 1e-5 * y.double().abs().max() + 1e-7:
                yield f"{key}: values differ"
