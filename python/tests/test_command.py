"""The command, called from Python."""

import subprocess
import sys

import pytest
from conftest import ROOT

import mlpfusion


@pytest.fixture(autouse=True)
def built(monkeypatch):
    monkeypatch.setenv("MLPFUSION_BIN", str(ROOT / "bin" / "mlpfusion"))


def test_fuse_and_inspect(checkpoint, tmp_path):
    before = mlpfusion.inspect(checkpoint("bert"))
    assert mlpfusion.fuse(checkpoint("bert"), tmp_path / "small", ratio=0.5, layers=[0, 2], overwrite=True)
    after = mlpfusion.inspect(tmp_path / "small")
    widths = [[b["width"] for b in told["blocks"]] for told in (before, after)]
    assert widths[1] == [w // 2 if i in (0, 2) else w for i, w in enumerate(widths[0])]
    assert mlpfusion.from_pretrained(tmp_path / "small").fused_blocks()


def test_refused(checkpoint, tmp_path):
    with pytest.raises(mlpfusion.CommandError, match="ratio"):
        mlpfusion.fuse(checkpoint("bert"), tmp_path / "small", ratio=7)
    assert not (tmp_path / "small").exists()


def test_needs_no_torch():
    said = subprocess.run([sys.executable, "-c", "import sys, mlpfusion; mlpfusion.fuse; assert 'torch' not in sys.modules and 'transformers' not in sys.modules"], capture_output=True, text=True)
    assert said.returncode == 0, said.stderr
