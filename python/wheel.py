"""Packs the Python package and the mlpfusion command for one platform into a wheel:

    python wheel.py GOOS/GOARCH BINARY OUT

The same files give the same bytes. Run in the root of the sources, with go in the path: the
licences of all that is linked into the binary go along."""

import base64
import hashlib
import json
import os
import pathlib
import re
import subprocess
import sys
import zipfile

import tomllib

# A static binary needs nothing of Linux's libraries, so that any will do.
TAGS = {
    "linux/amd64": "manylinux2014_x86_64.musllinux_1_1_x86_64",
    "linux/arm64": "manylinux2014_aarch64.musllinux_1_1_aarch64",
    "darwin/amd64": "macosx_12_0_x86_64",
    "darwin/arm64": "macosx_12_0_arm64",
    "windows/amd64": "win_amd64",
    "windows/arm64": "win_arm64",
}
HERE = pathlib.Path(__file__).parent


def licences(platform):
    """The texts of the licences of the modules that a platform's command is made of, and of Go."""
    goos, goarch = platform.split("/")
    yield "LICENSE", (HERE.parent / "LICENSE").read_bytes()
    run = ["go", "list", "-deps", "-f", '{{with .Module}}{{if .Dir}}{{.Path}}\t{{.Dir}}{{end}}{{end}}', "./cmd/mlpfusion"]
    lines = sorted(set(subprocess.run(run, check=True, capture_output=True, text=True, cwd=HERE.parent, env=os.environ | {"GOOS": goos, "GOARCH": goarch}).stdout.split("\n")) - {""})
    modules = [line.split("\t") for line in lines] + [["go", subprocess.run(["go", "env", "GOROOT"], check=True, capture_output=True, text=True).stdout.strip()]]
    for module, folder in modules:
        if module == "mlpfusion":
            continue
        texts = [f for f in sorted(pathlib.Path(folder).glob("*")) if re.match(r"(?i)((un)?licen[sc]e|copying|notice|patents)", f.name) and f.is_file()]
        if not texts:
            raise SystemExit(f"wheel: {module}: expected a licence, found none")
        for f in texts:
            yield f"{module}/{f.name}", f.read_bytes()


def main(platform, binary, out):
    project = tomllib.loads((HERE / "pyproject.toml").read_text())["project"]
    version = re.search(r'"(.+)"', (HERE / "mlpfusion" / "version.py").read_text())[1]
    stem, tag = f"mlpfusion-{version}", f"py3-none-{TAGS[platform]}"
    info = stem + ".dist-info"
    files = {f"mlpfusion/{f.name}": f.read_bytes() for f in (HERE / "mlpfusion").iterdir() if f.suffix == ".py" or f.name == "py.typed"}
    command = "mlpfusion.exe" if platform.startswith("windows/") else "mlpfusion"
    files[f"{stem}.data/scripts/{command}"] = pathlib.Path(binary).read_bytes()
    about = ["Metadata-Version: 2.4", "Name: mlpfusion", f"Version: {version}", f"Summary: {project['description']}", f"License-Expression: {project['license']}", f"Requires-Python: {project['requires-python']}"]
    for name, text in licences(platform):
        files[f"{info}/licenses/{name}"] = text
        about.append(f"License-File: {name}")
    for extra, needs in project["optional-dependencies"].items():
        about += [f"Provides-Extra: {extra}", *(f"Requires-Dist: {n}; extra == {json.dumps(extra)}" for n in needs)]
    files[f"{info}/METADATA"] = ("\n".join(about) + "\n").encode()
    files[f"{info}/WHEEL"] = "".join(["Wheel-Version: 1.0\nGenerator: wheel.py\nRoot-Is-Purelib: false\n", *(f"Tag: py3-none-{t}\n" for t in TAGS[platform].split("."))]).encode()
    record = "".join(f"{n},sha256={base64.urlsafe_b64encode(hashlib.sha256(t).digest()).decode().rstrip('=')},{len(t)}\n" for n, t in sorted(files.items()))
    files[f"{info}/RECORD"] = (record + f"{info}/RECORD,,\n").encode()
    path = pathlib.Path(out) / f"{stem}-{tag}.whl"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as z:
        for name in sorted(files, key=lambda n: (n.startswith(info), n)):
            entry = zipfile.ZipInfo(name, (1980, 1, 1, 0, 0, 0))
            entry.compress_type, entry.create_system = zipfile.ZIP_DEFLATED, 3
            entry.external_attr = (0o100755 if "/scripts/" in name else 0o100644) << 16
            z.writestr(entry, files[name])
    print(path)


if __name__ == "__main__":
    main(*sys.argv[1:])
