"""Model versions on disk: `<folder>/<model>/<version>/model.onnx` beside its `manifest.toml`, never changed once there.

A version is built in a folder of its own beside the others, synced, and renamed to the next number; the rename fails
where that number is taken, so two publishers never get the same one and nobody ever sees half a version.
"""

from __future__ import annotations

import contextlib
import errno
import functools
import hashlib
import os
import shutil
import tempfile
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import msgspec

from fallback.errors import FullError, InvalidError, NotFoundError, StateError
from gateway import admission
from gateway.manifest import ARTEFACT, MANIFEST, Manifest, check_name, check_version, is_version, parse, render

_STAGING: Final = ".staging-"
_STAGING_SECONDS_MAX: Final = 24 * 3600
_COPY_BYTES: Final = 1024 * 1024
VERSIONS_MAX: Final = 100_000
# To read TOML keeps the interpreter from whoever answers for a millisecond; versions are swapped to and fro.
_PARSED_MAX: Final = 16

_parsed = functools.lru_cache(_PARSED_MAX)(parse)


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelVersion:
    """An immutable artefact with its manifest; `sha256` (hex) is the artefact's."""

    model: str
    version: str
    folder: Path
    manifest: Manifest
    sha256: str
    create_time: datetime

    @property
    def artefact(self) -> Path:
        """The ONNX file."""
        return self.folder / ARTEFACT

    @property
    def name(self) -> str:
        """The resource name."""
        return version_name(self.model, self.version)


class Registry:
    """All versions of all models under one folder, shared by the processes of one machine."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def publish(
        self, model: str, artefact: Path, manifest: Manifest, *, limits: admission.Limits | None = None
    ) -> ModelVersion:
        """Admit a copy of `artefact` as the next version of `model`; blocks while it is tried.

        Raises AdmissionError that says what is wrong with the artefact or the manifest.
        """
        check_name("model", model)
        if manifest.model not in {"", model}:
            raise InvalidError(f"model: the manifest is of {manifest.model!r}, published as {model!r}")
        limits = limits or admission.Limits()
        admission.check_size(artefact, limits)
        home = self.folder / model
        home.mkdir(parents=True, exist_ok=True)
        self._sweep(home)
        staging = Path(tempfile.mkdtemp(prefix=_STAGING, dir=home))
        try:
            copy = staging / ARTEFACT
            digest = _copy(artefact, copy)
            manifest = msgspec.structs.replace(manifest, model=model, files={ARTEFACT: digest})
            admitted = admission.admit(copy, manifest, limits=limits)
            version = self._place(staging, home, admitted)
        except BaseException:
            shutil.rmtree(staging, ignore_errors=True)
            raise
        return self.get(model, version)

    def upload_folder(self) -> Path:
        """Return a new folder for an artefact on its way here, on the same disk; its maker removes it."""
        self.folder.mkdir(parents=True, exist_ok=True)
        self._sweep(self.folder)
        return Path(tempfile.mkdtemp(prefix=_STAGING, dir=self.folder))

    def get(self, model: str, version: str) -> ModelVersion:
        """Read one version; raises NotFoundError."""
        check_name("model", model)
        check_version("version", version)
        folder = self.folder / model / version
        try:
            manifest = _parsed((folder / MANIFEST).read_text(encoding="utf-8"))
        except (FileNotFoundError, NotADirectoryError) as error:
            raise NotFoundError(self._missing(model, version)) from error
        return ModelVersion(
            model=model,
            version=version,
            folder=folder,
            manifest=manifest,
            sha256=manifest.files.get(ARTEFACT, ""),
            create_time=manifest.create_time or datetime.fromtimestamp(folder.stat().st_mtime, UTC),
        )

    def versions(self, model: str) -> list[ModelVersion]:
        """All versions of `model`, oldest first; none for a model that is not there."""
        return [self.get(model, str(number)) for number in self.numbers(model)]

    def numbers(self, model: str) -> list[int]:
        """All versions of `model` by number, oldest first, their manifests unread."""
        check_name("model", model)
        return _numbers(self.folder / model)

    def models(self) -> list[str]:
        """Return the names of all models that have a version, sorted."""
        if not self.folder.is_dir():
            return []
        return sorted(entry.name for entry in self.folder.iterdir() if entry.is_dir() and _numbers(entry))

    def verify(self, version: ModelVersion) -> None:
        """Raise StateError unless every file of `version` still has the sha256 that its manifest names."""
        for name, expected in version.manifest.files.items():
            got = digest_of(version.folder / name)
            if got != expected:
                raise StateError(f"{version.name}: {name} was changed: expected sha256 {expected}, got {got}")

    def _missing(self, model: str, version: str) -> str:
        known = [str(number) for number in _numbers(self.folder / model)]
        if not known:
            return f"model {model!r} is not here; there are: {', '.join(self.models()) or 'none'}"
        there = f"only {known[0]}" if len(known) == 1 else f"{known[0]} to {known[-1]}"
        return f"model {model!r} has no version {version}; it has {there}"

    def _place(self, staging: Path, home: Path, manifest: Manifest) -> str:
        """Give the staged files the next number."""
        number = max(_numbers(home), default=0) + 1
        while number <= VERSIONS_MAX:
            created = manifest.create_time or datetime.now(UTC).replace(microsecond=0)
            numbered = msgspec.structs.replace(manifest, version=str(number), create_time=created)
            text = staging / MANIFEST
            text.write_text(render(numbered), encoding="utf-8")
            for file in (staging / ARTEFACT, text):
                _sync(file)
            staging.chmod(0o755)
            _sync(staging)
            try:
                staging.rename(home / str(number))
            except OSError as error:
                if error.errno not in {errno.ENOTEMPTY, errno.EEXIST}:
                    raise
                number += 1
                continue
            for name in (ARTEFACT, MANIFEST):
                (home / str(number) / name).chmod(0o444)
            _sync(home)
            return str(number)
        raise FullError(f"model {manifest.model!r} has {VERSIONS_MAX} versions, the most it may have")

    def _sweep(self, home: Path) -> None:
        """Remove what a publisher that was killed left behind."""
        oldest = datetime.now(UTC).timestamp() - _STAGING_SECONDS_MAX
        for left in home.glob(f"{_STAGING}*"):
            with contextlib.suppress(FileNotFoundError):  # its publisher is done with it
                if left.stat().st_mtime < oldest:
                    shutil.rmtree(left, ignore_errors=True)


def version_name(model: str, version: str) -> str:
    """Return `models/<model>/versions/<version>`."""
    return f"models/{model}/versions/{version}"


def parse_name(name: str) -> tuple[str, str]:
    """Split `models/<model>/versions/<version>`; raises InvalidError."""
    match name.split("/"):
        case ["models", model, "versions", version]:
            check_name("name", model)
            check_version("name", version)
            return model, version
        case _:
            raise InvalidError(f"name: expected models/<model>/versions/<version>, got {name[:200]!r}")


def version_of(model: str, name: str) -> str:
    """Return which version of `model` a name is of; "" for no name. Raises InvalidError."""
    if not name:
        return ""
    whose, version = parse_name(name)
    if whose != model:
        raise InvalidError(f"name: expected a version of {model!r}, got {name!r}")
    return version


def digest_of(path: Path) -> str:
    """Return the sha256 of a file, hex; raises StateError where it is gone."""
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except FileNotFoundError as error:
        raise StateError(f"{path}: the file is gone") from error


def _numbers(home: Path) -> list[int]:
    try:
        names = [entry.name for entry in home.iterdir()]
    except (FileNotFoundError, NotADirectoryError):
        return []
    return sorted(int(name) for name in names if is_version(name) and (home / name / MANIFEST).is_file())


def _copy(source: Path, target: Path) -> str:
    """Copy a file and return the sha256 (hex) of what was copied."""
    digest = hashlib.sha256()
    with source.open("rb") as reader, target.open("xb") as writer:
        while block := reader.read(_COPY_BYTES):
            digest.update(block)
            writer.write(block)
    return digest.hexdigest()


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
