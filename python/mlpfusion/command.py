"""The mlpfusion command from Python. It needs no torch."""

import json
import os
import pathlib
import shutil
import subprocess
import sysconfig
from typing import Any

Path = str | os.PathLike[str]


class CommandError(RuntimeError):
    """What the command said when it refused or failed: one sentence."""


def binary() -> str:
    """The path of the command: that which the environment variable MLPFUSION_BIN names, that
    of the installed wheel, or the first in the path."""
    ours = pathlib.Path(sysconfig.get_path("scripts"), "mlpfusion" + (sysconfig.get_config_var("EXE") or ""))
    found = os.environ.get("MLPFUSION_BIN") or (str(ours) if ours.exists() else shutil.which("mlpfusion"))
    if not found:
        raise FileNotFoundError("mlpfusion: expected the command in the installed wheel or in the path, found none: pip install a wheel of make wheel, or set MLPFUSION_BIN")
    return found


def run(verb: str, *args: Path, **flags: Any) -> Any:
    """Runs `mlpfusion VERB ARGS --json` and returns what it says. A flag is given under its
    name with _ for -: dev_rows=500 is --dev-rows 500; True is a flag without a value, a list
    its values with commas between them, None is left out.

    Raises CommandError when the command does not succeed."""
    line = [binary(), verb, *map(str, args), "--json", "--quiet"]
    for name, value in flags.items():
        flag = "--" + name.replace("_", "-")
        if isinstance(value, bool):
            line.append(f"{flag}={str(value).lower()}")
        elif value is not None:
            line += [flag, ",".join(map(str, value)) if isinstance(value, (list, tuple)) else str(value)]
    done = subprocess.run(line, capture_output=True, text=True)
    if done.returncode != 0:
        raise CommandError(done.stderr.strip().removeprefix("mlpfusion: ") or f"mlpfusion {verb}: exit status {done.returncode}")
    return json.loads(done.stdout)


def fuse(model: Path, out: Path, **flags: Any) -> Any:
    """Compresses the MLP blocks of a checkpoint and writes the result to the directory out:
    fuse(model, "small", ratio=0.25, method="calibrated", task="sst2", data="glue/SST-2"). The
    flags are those of `mlpfusion fuse`; what it says of the result is returned."""
    return run("fuse", model, out, **flags)


def export(model: Path, out: Path, **flags: Any) -> Any:
    """Writes a checkpoint in a form that others read: export("small", "code", remote_code=True).
    The flags are those of `mlpfusion export`."""
    return run("export", model, out, **flags)


def inspect(model: Path, **flags: Any) -> Any:
    """The blocks of a checkpoint: widths, parameters, FLOPs, inertia, cluster sizes. The flags
    are those of `mlpfusion inspect`."""
    return run("inspect", model, **flags)
