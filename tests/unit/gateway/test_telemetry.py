"""ONNX Runtime sends nothing home and writes nothing down."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from gateway import admission
from tests.onnx_files import linear

VARIABLE = "ORT_DISABLE_TELEMETRY"
# Imports what its argument names and says what the variable was when ONNX Runtime began to load.
_IMPORT = f"""
import importlib, os, sys
class Watch:
    def find_spec(self, name, path=None, target=None):
        if name == "onnxruntime":
            print(os.environ.get("{VARIABLE}"))
sys.meta_path.insert(0, Watch())
importlib.import_module(sys.argv[1])
"""
_RUN = """
import sys
from pathlib import Path
import numpy as np
from gateway.model import Model
model = Model.load(Path(sys.argv[1]), device="cpu")
try:
    model.run({"x": np.ones((1, 99), np.float32)})
except Exception:
    print(model.run({"x": np.ones((2, 4), np.float32)})["y"].shape)
"""


def _python(code: str, *arguments: str, home: Path, **more: str) -> str:
    """What `code` says in an interpreter that finds `home` where people's folders are."""
    plain = {name: value for name, value in os.environ.items() if name != VARIABLE and not name.startswith("XDG_")}
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments],
        env={**plain, "HOME": str(home), "XDG_CACHE_HOME": str(home / "cache"), **more},
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout.strip()


@pytest.mark.parametrize(
    "module",
    [
        "gateway.model",
        "gateway.slabs",
        "trainer.features",
        "gateway.trial",
        "benchmarks.peers.__main__",
        "tests.conftest",
    ],
)
def test_it_is_told_before_it_is_loaded(module: str, tmp_path: Path) -> None:
    """Whichever module comes first; of those that import it only when they run, what they leave behind."""
    code = f"{_IMPORT}\nimport onnxruntime"
    assert _python(code, module, home=tmp_path).splitlines()[0] == "1"


def test_who_sets_the_variable_decides(tmp_path: Path) -> None:
    """It is a default, which nobody is overruled by; the process that tries a new version is told the same."""
    assert _python(_IMPORT, "gateway.model", home=tmp_path, **{VARIABLE: "0"}).splitlines()[0] == "0"


def test_a_trial_is_told_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its environment has nothing in it but what it must know; this is among it."""
    monkeypatch.setenv(VARIABLE, "1")
    assert admission._environment()[VARIABLE] == "1"


def test_a_model_that_is_loaded_and_run_leaves_no_file(tmp_path: Path) -> None:
    """Nor does a run that fails, whose sentence would be in what is sent."""
    home, artefact = tmp_path / "home", tmp_path / "model.onnx"
    home.mkdir()
    artefact.write_bytes(linear().SerializeToString())
    assert _python(_RUN, str(artefact), home=home) == "(2, 3)"
    assert list(home.rglob("*")) == []
