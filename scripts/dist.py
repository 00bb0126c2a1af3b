"""Packs a release: an archive for each platform, and beside them an SBOM of each and the sums:

    python dist.py CYCLONEDX-GOMOD OUT GOOS/GOARCH…

Run in the root of a checkout. The same commit gives the same bytes: times are the
commit's, and names are sorted."""

import gzip
import hashlib
import io
import json
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
import time
import zipfile

ROOT = pathlib.Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "python"))
from wheel import licences  # noqa: E402


def run(*command, **env):
    return subprocess.run(command, check=True, capture_output=True, text=True, cwd=ROOT, env=os.environ | {"CGO_ENABLED": "0"} | env).stdout


def extras(made):
    """The manual and the completions, the same for every platform."""
    folder = pathlib.Path(tempfile.mkdtemp())
    run("go", "build", "-tags", "man", "-o", folder / "mlpfusion", "./cmd/mlpfusion")
    (folder / "man1").mkdir()
    run(folder / "mlpfusion", "man", folder / "man1", SOURCE_DATE_EPOCH=str(made))
    files = {f"man/man1/{f.name}": f.read_bytes() for f in (folder / "man1").iterdir()}
    for shell, name in {"bash": "mlpfusion.bash", "zsh": "_mlpfusion", "fish": "mlpfusion.fish", "powershell": "mlpfusion.ps1"}.items():
        files[f"completions/{name}"] = run(folder / "mlpfusion", "completion", shell).encode()
    shutil.rmtree(folder)
    return files | {name: (ROOT / name).read_bytes() for name in ("README.md", "LICENSE", "CHANGELOG.md")}


def pack(path, files, made):
    """An archive of files, by name: .zip, or .tar.gz. The command may be executed."""
    def mode(name):
        return 0o755 if name.split("/")[1] in ("mlpfusion", "mlpfusion.exe") else 0o644
    if path.suffix == ".zip":
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as z:
            for name in sorted(files):
                entry = zipfile.ZipInfo(name, time.gmtime(made)[:6])
                entry.compress_type, entry.create_system, entry.external_attr = zipfile.ZIP_DEFLATED, 3, (0o100000 | mode(name)) << 16
                z.writestr(entry, files[name])
        return
    with open(path, "wb") as f, gzip.GzipFile("", "wb", 9, f, mtime=made) as g, tarfile.open(fileobj=g, mode="w", format=tarfile.GNU_FORMAT) as t:
        for name in sorted(files):
            entry = tarfile.TarInfo(name)
            entry.size, entry.mtime, entry.mode = len(files[name]), made, mode(name)
            t.addfile(entry, io.BytesIO(files[name]))


def main(sbom, out, *platforms):
    version = re.search(r'release = "v(.+)"', (ROOT / "cmd/mlpfusion/main.go").read_text())[1]
    made = int(run("git", "log", "-1", "--format=%ct"))
    out = pathlib.Path(out)
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir(parents=True)
    common = extras(made)
    for platform in platforms:
        goos, goarch = platform.split("/")
        stem = f"mlpfusion_{version}_{goos}_{goarch}"
        command = "mlpfusion.exe" if goos == "windows" else "mlpfusion"
        with tempfile.TemporaryDirectory() as folder:
            binary = pathlib.Path(folder) / command
            run("go", "build", "-trimpath", "-buildvcs=true", "-ldflags=-s -w -buildid=", "-o", binary, "./cmd/mlpfusion", GOOS=goos, GOARCH=goarch)
            listed = json.loads(run(sbom, "bin", "-json", "-noserial", "-std", "-version", "v" + version, binary))
            files = common | {command: binary.read_bytes()} | {f"licences/{name}": text for name, text in licences(platform) if name != "LICENSE"}
        listed["metadata"]["timestamp"] = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(made))
        (out / f"{stem}.cdx.json").write_text(json.dumps(listed, indent=1) + "\n")
        path = out / (stem + (".zip" if goos == "windows" else ".tar.gz"))
        pack(path, {f"{stem}/{name}": text for name, text in files.items()}, made)
        print(path)
    sums = "".join(f"{hashlib.sha256(f.read_bytes()).hexdigest()}  {f.name}\n" for f in sorted(out.iterdir()))
    (out / "SHA256SUMS").write_text(sums)


if __name__ == "__main__":
    main(*sys.argv[1:])
