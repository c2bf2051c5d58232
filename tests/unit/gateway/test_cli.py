"""The `demur` command as a person meets it: help for each part, one line for an error, no traceback."""

from __future__ import annotations

import os
import subprocess
import sys
import tomllib
from importlib.metadata import entry_points
from pathlib import Path

import pytest
import structlog

from fallback.errors import UnauthenticatedError
from gateway import application, cli

COMMANDS = sorted(entry.name for entry in entry_points(group="demur.commands"))


def _demur(*arguments: str, folder: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("DEMUR_")}
    return subprocess.run(
        [sys.executable, "-m", "gateway.cli", *arguments],
        capture_output=True,
        text=True,
        check=False,
        cwd=folder,
        stdin=subprocess.DEVNULL,
        env={**kept, "COLUMNS": "120", **environment},
        timeout=60,
    )


def test_help_lists_every_command(tmp_path: Path) -> None:
    """With one line about each."""
    done = _demur("--help", folder=tmp_path)
    assert done.returncode == 0, done.stderr
    for name in COMMANDS:
        assert f"│ {name} " in done.stdout


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_help_with_an_example(name: str, tmp_path: Path) -> None:
    """Something that a person can follow; a group lists its commands, which have theirs."""
    done = _demur(name, "--help", folder=tmp_path)
    assert done.returncode == 0, done.stderr
    assert f"Usage: demur {name}" in done.stdout
    assert "Example" in done.stdout or "Commands" in done.stdout


def test_an_error_is_one_line_and_an_exit_code(tmp_path: Path) -> None:
    """2 for wrong use, 1 for what failed; never a traceback."""
    (tmp_path / "demur.toml").write_text("[gatway]\n")
    wrong = _demur("config", folder=tmp_path)
    assert (wrong.returncode, wrong.stdout) == (2, "")
    assert wrong.stderr.startswith("demur: demur.toml: ")
    assert "gateway" in wrong.stderr
    (tmp_path / "demur.toml").unlink()
    failed = _demur("models", "list", folder=tmp_path)
    assert failed.returncode == 1
    assert (
        failed.stderr
        == f"demur: no stack runs on {tmp_path / 'data'}: start one with `demur up`, or give --gateway HOST:PORT\n"
    )


def test_an_unreachable_gateway_is_named(tmp_path: Path) -> None:
    """Nobody answers on port 1."""
    done = _demur("models", "list", "--gateway", "127.0.0.1:1", folder=tmp_path)
    assert done.returncode == 1
    assert done.stderr.startswith("demur: ")
    assert "127.0.0.1:1" in done.stderr
    assert "Traceback" not in done.stderr


def test_config_shows_and_explains(tmp_path: Path) -> None:
    """What is in force, and every key with its meaning."""
    (tmp_path / "demur.toml").write_text("[gateway]\nthreads = 3\n[queues.night]\nlease_seconds = 5\n")
    shown = _demur("config", folder=tmp_path).stdout
    assert "threads = 3" in shown
    assert "[queues.night]" in shown
    explained = _demur("config", "--explain", folder=tmp_path).stdout
    for key in ("grpc_listen", "DEMUR_REDIS_URL", "lease_seconds", "artefact_bytes_max"):
        assert key in explained


def test_what_config_shows_is_a_demur_toml(tmp_path: Path) -> None:
    """However narrow the terminal: each value is on one line, and it can be read as what was in force."""
    networks = [f"10.{number}.0.0/16" for number in range(20)]
    allowed = ", ".join(f'"{network}"' for network in networks)
    (tmp_path / "demur.toml").write_text(
        f'[fallback]\nwebhook_allow_networks = [{allowed}]\n[queues."at.night"]\nlease_seconds = 5\n'
    )
    first = _demur("config", folder=tmp_path, COLUMNS="40").stdout
    document = tomllib.loads(first)
    assert document["fallback"]["webhook_allow_networks"] == networks
    assert document["queues"]["at.night"]["lease_seconds"] == 5
    (tmp_path / "demur.toml").write_text(first)
    again = _demur("config", folder=tmp_path).stdout
    assert tomllib.loads(again) == document


@pytest.mark.parametrize(
    ("arguments", "got"),
    [
        (("predict", "m", "--digit", "2000"), "2000"),
        (("models", "policy", "set", "m", "--threshold", "1.5"), "1.5"),
        (("queue", "items", "q", "--limit", "none"), "none"),
    ],
)
def test_a_refused_number_is_shown(arguments: tuple[str, ...], got: str, tmp_path: Path) -> None:
    """With what was expected, by the option's name."""
    done = _demur(*arguments, folder=tmp_path, COLUMNS="200")
    assert done.returncode == 2
    assert f"Invalid value for '{arguments[-2]}'" in done.stderr
    assert got in done.stderr.split(f"'{arguments[-2]}'")[1]


def test_what_is_wrong_is_said_of_what_was_typed(tmp_path: Path) -> None:
    """By the names of the arguments in the help, and of the files that were given."""
    assert "demur: VERSION: expected a whole number" in _demur("models", "promote", "m", "x", folder=tmp_path).stderr
    assert "demur: VERSION: expected a whole number" in _demur("models", "shadow", "m", "x", folder=tmp_path).stderr
    (tmp_path / "empty.onnx").touch()
    published = _demur("models", "publish", "empty.onnx", folder=tmp_path)
    assert "demur: empty.onnx: expected an ONNX file" in published.stderr
    for given in ("x", "0.5", ""):
        said = _demur("predict", "m", "--json", given, folder=tmp_path).stderr
        assert "--json: expected JSON text that begins with { or [, or the name of a file that holds it; " in said
        assert f"; {given!r} is neither" in said
    assert "--text: expected a text, got an empty one" in _demur("predict", "m", "--text", "", folder=tmp_path).stderr


def test_publishing_names_what_is_missing_where_nobody_can_be_asked(tmp_path: Path) -> None:
    """All of it at once."""
    from tests.onnx_files import linear, save

    path = save(linear(softmax=False), tmp_path / "my.onnx")
    done = _demur("models", "publish", str(path), folder=tmp_path)
    assert done.returncode == 2
    for option in ("--labels (what its 3 outputs mean)", "--activation", "--question", "--on-deferral"):
        assert option in done.stderr
    wrong = _demur("models", "publish", str(path), "--on-deferral", "maybe", folder=tmp_path)
    assert wrong.stderr == "demur: --on-deferral: expected provisional, refuse, wait; got 'maybe'\n"


def test_predict_wants_one_input(tmp_path: Path) -> None:
    """Neither none nor two."""
    assert (
        "expected one of --image, --json, --text and --digit, got none"
        in _demur("predict", "m", folder=tmp_path).stderr
    )
    two = _demur("predict", "m", "--digit", "7", "--text", "x", folder=tmp_path)
    assert (two.returncode, "got --text and --digit" in two.stderr) == (2, True)


def test_predict_asks_the_stack_on_the_folder_that_is_named(tmp_path: Path) -> None:
    """By --data, else by the file of --config, as `up` is told; --data wins."""
    (tmp_path / "other.toml").write_text('data_folder = "configured"')
    for options, folder in (
        (["--config", "other.toml"], "configured"),
        (["--config", "other.toml", "--data", "named"], "named"),
    ):
        done = _demur("predict", "m", "--text", "x", *options, folder=tmp_path)
        assert done.stderr.startswith(f"demur: no stack runs on {tmp_path / folder}: ")


@pytest.mark.parametrize(("token", "hint"), [("", "; set DEMUR_TOKEN to your token"), ("wrong", "")])
def test_who_shows_no_token_is_told_where_it_goes(
    token: str, hint: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Somebody whose token is wrong has found that already."""

    def refuse(**_: object) -> None:
        raise UnauthenticatedError("authorization: no")

    monkeypatch.setenv("DEMUR_TOKEN", token)
    monkeypatch.setattr(structlog, "configure", lambda **_: None)
    monkeypatch.setattr(application, "application", lambda _arguments: refuse)
    with pytest.raises(SystemExit, match="1"):
        cli.main()
    assert capsys.readouterr().err == f"demur: authorization: no{hint}\n"
