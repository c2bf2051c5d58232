"""From the object that a benchmark printed to files: the page, and its plots one by one."""

from __future__ import annotations

import platform
import shlex
import sys
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import Any, Final, Literal

import msgspec

from benchmarks.serve.report import gpu, page, promises, target
from benchmarks.serve.report.page import Page
from benchmarks.serve.report.promises import Promised
from benchmarks.serve.results import Result
from fallback.errors import InvalidError

_PACKAGES: Final = ("demur", "grpcio", "numpy", "onnxruntime-gpu", "onnxruntime", "protobuf")
_READABLE: Final = (
    "expected the last line of `demur bench serve --json`, with or without --target, or of benchmarks/gpu.sh"
)


def versions() -> str:
    """Return what is installed here of what matters, and the Python."""
    found = [f"Python {platform.python_version()}"]
    for name in _PACKAGES:
        try:
            found.append(f"{name} {metadata.version(name)}")
        except metadata.PackageNotFoundError:
            continue
    return ", ".join(found)


def beside() -> list[tuple[str, str]]:
    """Return what belongs to a run of this very process: its command and its versions."""
    # Run as a module, the command has that one's name.
    program = Path(sys.argv[0]).name.replace("cli.py", "demur")
    return [("command", shlex.join([program, *sys.argv[1:]])), ("versions", versions())]


def read(path: Path) -> Mapping[str, Any]:
    """Return the object in a file's last line; raises InvalidError where there is none."""
    try:
        lines = path.read_text(encoding="utf-8").strip().splitlines()
        found: Any = msgspec.json.decode(lines[-1]) if lines else None
    except (OSError, UnicodeDecodeError, msgspec.DecodeError) as error:
        raise InvalidError(f"{path}: {_READABLE}, got {error}") from error
    if not isinstance(found, dict):
        raise InvalidError(f"{path}: {_READABLE}, got something else")
    return found


def page_of(found: Mapping[str, Any], *, facts: list[tuple[str, str]]) -> Page:
    """Return the page of a run's object; raises InvalidError for one that is none."""
    try:
        if "scenarios" in found:
            return target.page(msgspec.convert(found, Result), facts=facts)
        if "gpu" in found:
            return gpu.page(msgspec.convert(found, gpu.Found, strict=False), facts=facts)
        return promises.page(msgspec.convert(found, Promised), facts=facts)
    except msgspec.ValidationError as error:
        raise InvalidError(f"{_READABLE}, got an object whose {error}") from error


def expect(path: Path | None) -> None:
    """Raise InvalidError where a page cannot be written there, before minutes are spent on it."""
    if path is None:
        return
    there = path.exists()
    # Not to be truncated: what is there stays until there is something better.
    _write(path, "", how="a")
    if not there:
        path.unlink()


def report(path: Path | None, found: Mapping[str, Any]) -> None:
    """Write the page of a run that this process has just made, where one is asked for."""
    if path is not None:
        write_page(path, page_of(found, facts=beside()))


def again(path: Path, *, html: Path | None, plots: Path | None) -> list[Path]:
    """Write what is asked for of the run in a file; returns the files. Raises InvalidError where nothing is."""
    if html is None and plots is None:
        raise InvalidError("expected --html FILE or --plots FOLDER, or both, got neither")
    made = page_of(read(path), facts=[("made from", path.name), ("versions here", versions())])
    if html is not None:
        write_page(html, made)
    return [*([html] if html else []), *(write_plots(plots, made, prefix=path.stem) if plots else [])]


def write_page(path: Path, made: Page) -> None:
    """Write the page as one file; raises InvalidError where it cannot be written."""
    _write(path, page.render(made))


def write_plots(folder: Path, made: Page, *, prefix: str) -> list[Path]:
    """Write each plot as an SVG of its own, named `prefix`-name; returns the files."""
    written = []
    for section in made.sections:
        for plot in section.plots:
            written.append(folder / f"{prefix}-{plot.name}.svg")
            _write(written[-1], f"{plot.alone()}\n")
    return written


def _write(path: Path, content: str, *, how: Literal["w", "a"] = "w") -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open(how, encoding="utf-8") as file:
            file.write(content)
    except OSError as error:
        raise InvalidError(f"{path}: expected a file that can be written, got {error.strerror}") from error
