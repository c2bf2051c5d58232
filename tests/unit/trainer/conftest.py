"""A published first model of digits, with the rooms of a trainer around it."""

from __future__ import annotations

import shutil
from pathlib import Path

import onnx
import pytest

from fallback.config import Config
from gateway.registry import ModelVersion
from trainer import digits, first
from trainer.retrain import Rooms


@pytest.fixture(scope="session")
def published(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data folder with version 1 of `digits` and its imported examples, published as the gateway would."""
    data = tmp_path_factory.mktemp("published")
    rooms = Rooms.open(Config(data_folder=data))
    found = digits.load()
    manifest = first.import_examples(rooms, digits.manifest("digits"), found)
    path = data / "made.onnx"
    onnx.save_model(first.build(found.tensor(found.seed), found.labels[list(found.seed)], label_count=10), path)
    rooms.registry.publish("digits", path, manifest)
    return data


@pytest.fixture
def rooms(published: Path, tmp_path: Path) -> Rooms:
    """Rooms of the test's own, with that model in them."""
    data = tmp_path / "data"
    shutil.copytree(published, data)
    return Rooms.open(Config(data_folder=data))


@pytest.fixture
def parent(rooms: Rooms) -> ModelVersion:
    """Version 1."""
    return rooms.registry.get("digits", "1")


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """What these tests kill is the process, not the machine: they need not wait for the disk."""
    monkeypatch.setattr("trainer.chain.os.fsync", lambda _: None)
