"""Where a run stands: its folder, its environment, the stack that is not there."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks import stack
from benchmarks.demo import command
from fallback import config as configuration
from fallback.config import FallbackSettings
from fallback.errors import InvalidError, UnavailableError
from gateway.config import GatewaySettings


def test_a_temporary_folder_goes_and_a_kept_one_stays(tmp_path: Path) -> None:
    """What --keep names is there afterwards, with what the run left in it."""
    with stack.place(None) as folder:
        (folder / "x").touch()
    assert not folder.exists()
    with stack.place(tmp_path / "kept") as folder:
        (folder / "x").touch()
    assert (tmp_path / "kept" / "x").exists()


def test_a_folder_with_somebodys_files_is_refused(tmp_path: Path) -> None:
    """A run must not mix with what was there."""
    (tmp_path / "x").touch()
    with pytest.raises(InvalidError, match="expected an empty or a new folder"), stack.place(tmp_path):
        pass


def test_a_stack_of_ones_own_inherits_no_pointer_elsewhere(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Neither the data folder nor the server of the person who runs it."""
    for name in ("DEMUR_DATA", "DEMUR_REDIS_URL", "DEMUR_CONFIG"):
        monkeypatch.setenv(name, "elsewhere")
    monkeypatch.delenv("DEMUR_SERVER", raising=False)
    got = stack.environment(tmp_path / "demur.toml", {"DEMUR_WEBHOOK_SECRET": "s"})
    assert {name: value for name, value in got.items() if name.startswith("DEMUR_")} == {
        "DEMUR_CONFIG": str(tmp_path / "demur.toml"),
        "DEMUR_WEBHOOK_SECRET": "s",
    }


def test_no_running_stack_is_an_error_that_says_how_to_start_one(tmp_path: Path) -> None:
    """`--running` without `demur up`."""
    with pytest.raises(UnavailableError, match="demur up"):
        stack.running(tmp_path)


def test_what_listens_has_a_port_of_its_own(tmp_path: Path) -> None:
    """Four addresses, no two the same, in a file that the configuration takes."""
    path = tmp_path / "demur.toml"
    path.write_text(stack.listens())
    config = configuration.load(path)
    gateway = config.table("gateway", GatewaySettings)
    fallback = config.table("fallback", FallbackSettings)
    found = {gateway.grpc_listen, gateway.metrics_listen, fallback.grpc_listen, fallback.page_listen}
    assert len(found) == 4
    assert not any(listen.endswith(":0") for listen in found)


def test_what_the_demo_sets_is_what_the_configuration_knows(tmp_path: Path) -> None:
    """A key that is renamed breaks here, and not in front of a newcomer."""
    path = tmp_path / "demur.toml"
    path.write_text(stack.listens() + command.SETTINGS)
    assert configuration.load(path).queue("digits").lease_seconds < 60
