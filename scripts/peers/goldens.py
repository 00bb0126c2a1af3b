"""Makes every golden again and compares with what is committed: the scripts of
scripts/goldens run on a copy of themselves and of the test data in a temporary
folder, which must then hold what is committed.

    python scripts/peers/goldens.py

Tensors agree within 1e-5 of each tensor's largest value and numbers in JSON
within 1e-5 of themselves (another CPU sums in another order: an Intel's beam score
was 1.3e-6 from an AMD's); everything else, the names of files included, to the byte.
"""

import importlib.util
import json
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "scripts" / "goldens"))

import common  # noqa: E402


def close(a, b):
    if isinstance(a, dict) and isinstance(b, dict):
        return a.keys() == b.keys() and all(close(a[k], b[k]) for k in a)
    if isinstance(a, list) and isinstance(b, list):
        return len(a) == len(b) and all(map(close, a, b))
    if isinstance(a, float) or isinstance(b, float):
        return isinstance(a, (int, float)) and isinstance(b, (int, float)) and abs(a - b) <= 1e-5 * max(abs(a), abs(b)) + 1e-12
    return a == b


def differences(fresh, committed):
    for line in common.differences(fresh, committed):
        name = line.split(":")[0]
        if name.endswith(".json") and line.endswith(": differs") and close(json.loads((fresh / name).read_text()), json.loads((committed / name).read_text())):
            continue
        yield line


def main():
    tracked = subprocess.run(["git", "ls-files"], cwd=ROOT, check=True, capture_output=True, text=True).stdout.split("\n")
    tracked = [f for f in tracked if f.startswith("scripts/") or "/testdata/" in f]
    wrong = []
    with tempfile.TemporaryDirectory() as tmp:
        copy, committed = pathlib.Path(tmp) / "copy", pathlib.Path(tmp) / "committed"
        for root in (copy, committed):
            for f in tracked:
                if (ROOT / f).is_file():
                    (root / f).parent.mkdir(parents=True, exist_ok=True)
                    shutil.copy(ROOT / f, root / f)
        for script in sorted((copy / "scripts" / "goldens").glob("*.py"), key=lambda p: p.stem == "minilm"):
            if script.name == "common.py":
                continue
            if script.stem == "minilm" and not os.environ.get("MLPFUSION_MINILM"):
                print("  minilm.py: skipped, MLPFUSION_MINILM is not set")
                continue
            package = {"gguf_types": "gguf", "gguf_models": "gguf", "lora": "peft"}.get(script.stem)
            if package and importlib.util.find_spec(package) is None:
                print(f"  {script.name}: skipped, the package {package} is not there")
                continue
            done = subprocess.run([sys.executable, script.name], cwd=script.parent, capture_output=True, text=True)
            if done.returncode != 0:
                wrong.append(f"{script.name}: {done.stderr.strip()}")
            print(f"  {script.name}: ran", flush=True)
        for name in sorted({p.relative_to(root) for root in (copy, committed) for p in root.rglob("testdata") if p.is_dir()}):
            found = list(differences(copy / name, committed / name))
            print(f"  {name}: {'as committed' if not found else 'DIFFERS'}", flush=True)
            wrong += [f"{name}/{line}" for line in found]
    print("\n".join(wrong), file=sys.stderr)
    sys.exit(1 if wrong else 0)


if __name__ == "__main__":
    main()
