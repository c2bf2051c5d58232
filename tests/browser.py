"""Makes sure that a Chromium is there for the tests of the page; `make test` runs it before pytest.

Looks at DEMUR_CHROMIUM, then on PATH, then for Playwright's own; else installs Debian's where that can be done, else
Playwright's. Where nothing helps it says so in one line and goes on: the tests of the page then fail with CI set and
are skipped without.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
VERSION_SECONDS = 20
INSTALL_SECONDS = 400


def find() -> str | None:
    """Return the path of a Chromium that starts, or None."""
    named = os.environ.get("DEMUR_CHROMIUM")
    found = [named] if named else [path for path in map(shutil.which, NAMES) if path]
    return next((path for path in [*found, *_playwrights_own()] if _starts(path)), None)


def _playwrights_own() -> list[str]:
    """Return what `playwright install chromium` puts into its cache, newest first."""
    if sys.platform == "darwin":
        cache = Path.home() / "Library" / "Caches" / "ms-playwright"
    else:
        cache = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "ms-playwright"
    cache = Path(os.environ.get("PLAYWRIGHT_BROWSERS_PATH", cache))
    names = ("chrome", "headless_shell", "chrome-headless-shell", "Chromium", "Google Chrome for Testing")
    folders = sorted(cache.glob("chromium*"), reverse=True)
    return [str(path) for folder in folders for name in names for path in folder.rglob(name) if path.is_file()]


def _starts(path: str) -> bool:
    """Say whether `path` runs; Ubuntu's chromium-browser may be a script that only asks for a snap."""
    try:
        done = subprocess.run([path, "--version"], capture_output=True, timeout=VERSION_SECONDS, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return False
    return done.returncode == 0


def _run(*command: str) -> bool:
    environment = os.environ | {"DEBIAN_FRONTEND": "noninteractive"}
    try:
        done = subprocess.run(command, env=environment, capture_output=True, timeout=INSTALL_SECONDS, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return False
    return done.returncode == 0


def _say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def install() -> None:
    """Install one by the first way that works."""
    if os.geteuid() == 0 and shutil.which("apt-get"):
        _say("the tests of the page need a Chromium: installing Debian's")
        _run("apt-get", "-qq", "update")
        if _run("apt-get", "-qq", "install", "--yes", "--no-install-recommends", "chromium") and find():
            return
    _say("the tests of the page need a Chromium: installing Playwright's")
    _run(sys.executable, "-m", "playwright", "install", "chromium")


def main() -> None:
    """Find one or install one; say what the tests will use."""
    if find() is None:
        install()
    found = find()
    if found is None:
        _say(
            "no Chromium: the tests of the page are skipped (with CI set they fail); "
            "install one, or name it in DEMUR_CHROMIUM"
        )
    else:
        _say(f"the page is tested in {found}")


if __name__ == "__main__":
    main()
