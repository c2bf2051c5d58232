"""Versions on disk: numbered once, whole or not there at all, never changed."""

from __future__ import annotations

import stat
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import msgspec
import pytest

from fallback.errors import InvalidError, NotFoundError, StateError
from gateway import admission
from gateway.admission import AdmissionError, Limits
from gateway.manifest import Manifest
from gateway.registry import ModelVersion, Registry, digest_of, parse_name
from tests.onnx_files import linear, save

MANIFEST = Manifest(labels=("a", "b", "c"))


@pytest.fixture
def registry(tmp_path: Path) -> Registry:
    return Registry(tmp_path / "models")


@pytest.fixture
def artefact(tmp_path: Path) -> Path:
    return save(linear(), tmp_path / "any.onnx")


@pytest.fixture
def unproven(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave the trial out, where numbering alone is looked at."""
    monkeypatch.setattr(admission, "admit", lambda _path, manifest, **_limits: manifest)


def test_a_published_version_is_read_back_whole(registry: Registry, artefact: Path) -> None:
    """Numbered from 1, with the digest of what was published, and read-only."""
    published = registry.publish("m", artefact, MANIFEST)
    assert (published.model, published.version, published.name) == ("m", "1", "models/m/versions/1")
    assert published == registry.get("m", "1")
    assert published.sha256 == digest_of(artefact) == published.manifest.files["model.onnx"]
    assert published.manifest.labels == MANIFEST.labels
    assert published.manifest.output.tensor == "y"
    assert published.artefact.read_bytes() == artefact.read_bytes()
    for name in ("model.onnx", "manifest.toml"):
        assert stat.S_IMODE((published.folder / name).stat().st_mode) == 0o444
    registry.verify(published)
    assert registry.publish("m", artefact, MANIFEST).version == "2"
    assert [version.version for version in registry.versions("m")] == ["1", "2"]
    assert registry.models() == ["m"]


@pytest.mark.usefixtures("unproven")
def test_publishers_at_once_get_a_number_each(registry: Registry, artefact: Path) -> None:
    """Nobody overwrites anybody, and no number is left out."""
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda _: registry.publish("m", artefact, MANIFEST), range(24)))
    assert sorted(int(version.version) for version in found) == list(range(1, 25))
    assert not list(registry.folder.glob("m/.staging-*"))


def test_what_is_refused_leaves_nothing_behind(registry: Registry, tmp_path: Path) -> None:
    """No half version, no staging folder, no number used up."""
    broken = save(b"no model", tmp_path / "broken.onnx")
    with pytest.raises(AdmissionError, match="not an ONNX file"):
        registry.publish("m", broken, MANIFEST)
    assert list((registry.folder / "m").iterdir()) == []
    assert registry.models() == []
    with pytest.raises(AdmissionError, match="expected 1 to 4 bytes, got 8"):
        registry.publish("m", broken, MANIFEST, limits=Limits(artefact_bytes_max=4))


@pytest.mark.usefixtures("unproven")
def test_a_file_changed_later_is_noticed(registry: Registry, artefact: Path) -> None:
    """`verify` compares every file with its digest."""
    published = registry.publish("m", artefact, MANIFEST)
    published.artefact.chmod(0o644)
    published.artefact.write_bytes(b"another")
    with pytest.raises(StateError, match=r"models/m/versions/1: model.onnx was changed: expected sha256 [0-9a-f]{64}"):
        registry.verify(published)
    published.artefact.unlink()
    with pytest.raises(StateError, match="the file is gone"):
        registry.verify(published)


@pytest.mark.usefixtures("unproven")
def test_what_is_not_there_is_named_with_what_is(registry: Registry, artefact: Path) -> None:
    """Unknown models and versions say what there is instead."""
    with pytest.raises(NotFoundError, match="model 'm' is not here; there are: none"):
        registry.get("m", "1")
    registry.publish("m", artefact, MANIFEST)
    with pytest.raises(NotFoundError, match="model 'm' has no version 7; it has only 1"):
        registry.get("m", "7")
    with pytest.raises(NotFoundError, match="model 'n' is not here; there are: m"):
        registry.get("n", "1")
    assert registry.versions("n") == []


@pytest.mark.parametrize("name", ["", "..", "../m", "a/b", ".hidden", "a" * 64, "é", "m\n"])
def test_names_that_could_leave_the_folder_are_refused(registry: Registry, artefact: Path, name: str) -> None:
    """A name becomes a folder and a part of keys."""
    with pytest.raises(InvalidError, match="model: expected 1 to 63 of"):
        registry.publish(name, artefact, MANIFEST)
    with pytest.raises(InvalidError, match="model: expected"):
        registry.get(name, "1")


@pytest.mark.parametrize("version", ["", "0", "01", "-1", "1.0", "x", "../1", "9" * 10])
def test_versions_are_whole_numbers(registry: Registry, version: str) -> None:
    """From 1 on, written one way."""
    with pytest.raises(InvalidError, match="version: expected a whole number from 1 on"):
        registry.get("m", version)


def test_a_manifest_of_another_model_is_refused(registry: Registry, artefact: Path) -> None:
    """The name in the manifest is not silently replaced."""
    with pytest.raises(InvalidError, match="the manifest is of 'n', published as 'm'"):
        registry.publish("m", artefact, msgspec.structs.replace(MANIFEST, model="n"))


def test_resource_names_are_split_and_checked() -> None:
    """models/<model>/versions/<version>, and nothing else."""
    assert parse_name("models/m/versions/3") == ("m", "3")
    for name in ("m/3", "models/m/versions/", "models/../versions/1", "models/m/versions/1/x"):
        with pytest.raises(InvalidError):
            parse_name(name)


def test_a_version_knows_its_place(tmp_path: Path, registry: Registry, artefact: Path) -> None:
    """A folder of versions can be moved as a whole."""
    published = registry.publish("m", artefact, MANIFEST)
    registry.folder.rename(tmp_path / "elsewhere")
    moved = Registry(tmp_path / "elsewhere").get("m", "1")
    assert isinstance(moved, ModelVersion)
    assert (moved.manifest, moved.create_time) == (published.manifest, published.create_time)
