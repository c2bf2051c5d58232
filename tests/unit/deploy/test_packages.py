"""What the packages import is what the wheel asks for."""

from __future__ import annotations

import ast
import re
import sys
import tomllib
from collections.abc import Iterator
from importlib.metadata import distributions
from pathlib import Path

ROOT = Path(__file__).parents[3]
OWN = {"demur", "gateway", "fallback", "trainer", "benchmarks"}
# The peers' side of a benchmark runs in environments of its own.
ELSEWHERE = ROOT / "benchmarks" / "peers" / "servers"


def _imported() -> set[str]:
    """The modules that are imported anywhere, at run time or not; of `google`, which several share, two parts."""
    found = set()
    for folder in sorted(OWN - {"demur"} | {"proto/demur"}):
        for path in (ROOT / folder).rglob("*.py"):
            if ELSEWHERE not in path.parents:
                found |= set(_modules(ast.parse(path.read_text())))
    return found - OWN - set(sys.stdlib_module_names)


def _modules(tree: ast.Module) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (_part(alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            yield _part(node.module or "")


def _part(module: str) -> str:
    return ".".join(module.split(".")[: 2 if module.startswith("google.") else 1])


def _declared() -> set[str]:
    requirements = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]
    return {_named(re.split(r"[^A-Za-z0-9._-]", requirement)[0]) for requirement in requirements}


def _named(package: str) -> str:
    return re.sub(r"[-_.]+", "-", package).lower()


def _brought() -> dict[str, set[str]]:
    """The modules that each installed package brings."""
    found: dict[str, set[str]] = {}
    for distribution in distributions():
        modules = found.setdefault(_named(distribution.metadata["Name"]), set())
        for file in distribution.files or ():
            if file.suffix in {".py", ".so"}:
                parts = (*file.parts[:-1], file.name.split(".")[0])
                modules.add(".".join(parts[: 2 if parts[0] == "google" else 1]))
    return found


def test_what_is_imported_is_declared_and_what_is_declared_is_imported() -> None:
    """Nothing comes by way of another package, which may leave it out; nothing is there that only developers use."""
    brought, imported, declared = _brought(), _imported(), _declared()
    undeclared = {
        module for module in imported if not any(module in brought.get(package, set()) for package in declared)
    }
    assert undeclared == set()
    unused = {package for package in declared if package in brought and not brought[package] & imported}
    assert unused == set()
