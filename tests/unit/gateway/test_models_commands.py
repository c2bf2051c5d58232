"""What `demur models` makes of its options before it calls anybody."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Self
from unittest.mock import Mock

import pytest
import typer

from demur.v1 import model_pb2 as pb
from fallback.errors import InvalidError
from gateway import draft_screen, models_commands, policy_commands
from gateway.draft import Outline
from gateway.manifest import Manifest, TensorSpec, parse, render
from tests.onnx_files import linear, save

OUTLINED = Outline(
    inputs=(TensorSpec(name="x", datatype="FP32", shape=(-1, 3)),),
    outputs=(TensorSpec(name="p", datatype="FP32", shape=(-1, 2)),),
    probable=frozenset({"p"}),
)


def test_a_change_of_nothing_is_refused() -> None:
    """It would be a revision that says nothing."""
    with pytest.raises(InvalidError, match="demur models policy get fraud"):
        policy_commands.policy_set("fraud")


@pytest.mark.parametrize("item", ["fraud", "8", "=", "=0.5", "=0.5x", "fraud=much"])
def test_a_threshold_of_a_class_names_class_and_number(item: str) -> None:
    """Or nothing after the sign, for none."""
    with pytest.raises(InvalidError, match="--class-threshold: expected LABEL=NUMBER, or LABEL= for none"):
        policy_commands.policy_set("fraud", class_threshold=[item])


@pytest.mark.parametrize("item", [":a=b", "north:region", "north:=b:0.01", "north:region=north:few"])
def test_a_segment_names_attributes_and_perhaps_alpha(item: str) -> None:
    """Or the name alone, to take it away."""
    with pytest.raises(InvalidError, match=r"--segment: expected NAME:KEY=VALUE\[,...\]\[:ALPHA\], or NAME"):
        policy_commands.policy_set("fraud", segment=[item])


def test_a_file_that_cannot_be_read_is_named_once(tmp_path: Path) -> None:
    """With what the system says of it."""
    with pytest.raises(InvalidError) as raised:
        models_commands.import_(tmp_path)
    assert raised.value.message == f"{tmp_path / 'manifest.toml'}: cannot be read: No such file or directory"


@pytest.mark.parametrize("command", ["import", "publish"])
def test_what_another_trainer_noted_is_not_taken_for_ours(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    """Of its ledger and its registry; it is kept under other names, as are those who made the version."""
    noted = {
        "ledger_row": "50000",
        "holdout_share": "0.01",
        "parent": "7",
        "made_by": "demur 1 trainer",
        "dataset": "d8",
    }
    brought = Manifest(model="mine", version="8", labels=("cat", "dog", "bird"), provenance=noted)
    (tmp_path / "manifest.toml").write_text(render(brought))
    artefact, client = save(linear(), tmp_path / "model.onnx"), Mock()

    def call(_: str, ask: Callable[[Mock], object]) -> object:
        return ask(client)

    monkeypatch.setattr(models_commands, "call", call)
    client.publish.return_value = pb.ModelVersion(name="models/mine/versions/1")
    if command == "import":
        models_commands.import_(tmp_path)
    else:
        models_commands.publish(artefact, manifest=tmp_path / "manifest.toml", review=False)
    name, _, text = client.publish.call_args.args
    found = parse(text)
    assert (name, found.version, found.labels) == ("mine", "", brought.labels)
    assert found.provenance == {
        "origin_ledger_row": "50000",
        "origin_holdout_share": "0.01",
        "origin_parent": "7",
        "made_by": "demur 1 trainer",
        "dataset": "d8",
    }


def test_what_is_shown_of_a_version_is_its_manifest(monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    """However narrow the terminal, and whatever was given as the reason."""
    manifest = Manifest(model="m", labels=tuple(f"label number {number}" for number in range(20)))
    version = pb.ModelVersion(
        name="models/m/versions/1",
        state=pb.ModelVersion.CHAMPION,
        reason="better [bold]at night[/bold]\nand by day, too, " + "much better " * 10,
        sha256="f" * 64,
        manifest=render(manifest),
    )
    monkeypatch.setattr(models_commands, "call", lambda *_: [version])
    monkeypatch.setenv("COLUMNS", "40")
    models_commands.show("m", "")
    shown = capsys.readouterr().out
    assert parse(shown) == manifest
    assert shown.startswith("# models/m/versions/1: champion\n# reason: better [bold]at night[/bold] and by day")


def test_what_the_gateway_says_of_an_artefact_is_said_of_the_file_that_was_given() -> None:
    """The gateway knows it by its own name for it; all else is left as it is."""
    with pytest.raises(InvalidError) as raised, models_commands._naming(Path("mine/big.onnx")):
        raise InvalidError("model.onnx: expected 1 to 10 bytes, got 11")
    assert raised.value.message == "mine/big.onnx: expected 1 to 10 bytes, got 11"
    with (
        pytest.raises(InvalidError, match=r"^labels: expected some, got none$"),
        models_commands._naming(Path("m.onnx")),
    ):
        raise InvalidError("labels: expected some, got none")


def test_on_a_terminal_labels_are_asked_for_until_they_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    """One label for each output; the rest is asked for once."""
    answers: Iterator[str] = iter(["honest", "honest,fraud", "Is this fraud?", "never", "wait"])
    monkeypatch.setattr(typer, "prompt", lambda *_: next(answers))
    monkeypatch.setattr("sys.stdin.isatty", lambda: True)
    filled = draft_screen.ask(Manifest(), OUTLINED, reviewed=True, activation=None)
    assert (filled.labels, filled.on_deferral) == (("honest", "fraud"), "wait")
    assert filled.task is not None
    assert filled.task.question == "Is this fraud?"


class _Client:
    """A gateway where version 3 of `mine` is live; keeps what it was asked to roll back."""

    asked: dict[str, str]

    def __init__(self, address: str, **_: object) -> None:
        assert address == "there:1"

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        pass

    async def list(self, model: str) -> list[pb.ModelVersion]:
        states = {2: pb.ModelVersion.RETIRED, 3: pb.ModelVersion.CHAMPION}
        return [pb.ModelVersion(name=f"models/{model}/versions/{version}", state=states[version]) for version in states]

    async def roll_back(self, model: str, **asked: str) -> pb.ModelVersion:
        type(self).asked = asked
        return pb.ModelVersion(name=f"models/{model}/versions/2")


def test_a_roll_back_says_which_version_it_saw(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that two at once go back one version, not two."""
    monkeypatch.setattr("gateway.model_client.ModelClient", _Client)
    models_commands.rollback("mine", reason="worse", gateway="there:1")
    assert _Client.asked == {"reason": "worse", "expected_champion": "models/mine/versions/3"}
