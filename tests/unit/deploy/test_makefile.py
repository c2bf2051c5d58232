"""`make` on a machine where a virtual environment cannot be made, and once it can."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[3]
# A Python as Debian has it without python3-venv: it makes half of an environment, says so, and fails.
_WITHOUT_VENV = f"""#!/bin/sh
if [ "$1" = -m ]; then
    mkdir -p .venv/bin
    printf '#!/bin/sh\\nexit 1\\n' > .venv/bin/python
    chmod +x .venv/bin/python
    exit 1
fi
exec {sys.executable} "$@"
"""


def _make(folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["make", "install", "PYTHON=./python"], cwd=folder, capture_output=True, text=True, check=False
    )


def test_half_an_environment_is_not_left_behind(tmp_path: Path) -> None:
    """The next run would take it for a whole one, also where an earlier version's left it; and what lacks is named."""
    shutil.copy(ROOT / "Makefile", tmp_path)
    (tmp_path / "pyproject.toml").touch()
    python = tmp_path / "python"
    python.write_text(_WITHOUT_VENV)
    python.chmod(0o755)
    for left in (False, True):
        if left:
            subprocess.run([python, "-m", "venv"], cwd=tmp_path, check=False)
        done = _make(tmp_path)
        assert done.returncode != 0
        assert "python3-venv" in done.stderr
        assert not (tmp_path / ".venv").exists()
