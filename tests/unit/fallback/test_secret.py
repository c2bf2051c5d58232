"""The secrets that are made, kept, and changed without a callback that its receiver could not check."""

from __future__ import annotations

import base64
import stat
import threading
from pathlib import Path

import pytest

from fallback.config import Config
from fallback.errors import ConfigError
from fallback.secret import SECRETS_MAX, rotate_webhook_secret, secret


@pytest.fixture(autouse=True)
def _nothing_in_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("DEMUR_WEBHOOK_SECRET", "DEMUR_AUDIT_SECRET"):
        monkeypatch.delenv(name, raising=False)


def test_a_secret_is_made_once_and_only_we_can_read_it(tmp_path: Path) -> None:
    """32 random bytes; the same for every process that asks, even at once."""
    config, found = Config(data_folder=tmp_path), set()
    threads = [threading.Thread(target=lambda: found.add(secret(config, "webhook"))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    (made,) = found
    assert len(base64.b64decode(made.removeprefix("whsec_"))) == 32
    assert secret(Config(data_folder=tmp_path), "webhook") == made
    kept = tmp_path / "secrets" / "webhook"
    assert stat.S_IMODE(kept.stat().st_mode) == 0o600
    assert [path.name for path in kept.parent.iterdir()] == ["webhook"]
    assert secret(config, "audit") != made


def test_a_secret_from_the_environment_wins_and_is_never_shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One that cannot sign is refused by the name of its variable."""
    config = Config(data_folder=tmp_path)
    given = "whsec_" + base64.b64encode(bytes(24)).decode()
    monkeypatch.setenv("DEMUR_WEBHOOK_SECRET", given)
    assert secret(config, "webhook") == given
    for wrong in ("hunter2", "whsec_hunter2", "whsec_" + base64.b64encode(bytes(23)).decode()):
        monkeypatch.setenv("DEMUR_WEBHOOK_SECRET", wrong)
        with pytest.raises(ConfigError, match="DEMUR_WEBHOOK_SECRET: expected whsec_") as raised:
            secret(config, "webhook")
        assert wrong not in raised.value.message
    with pytest.raises(ValueError, match="no secret"):
        secret(config, "redis")
    assert not (tmp_path / "secrets").exists()


def test_a_new_secret_stands_before_the_old_one_until_that_is_dropped(tmp_path: Path) -> None:
    """Only we can read the file at any time; finishing keeps the newest alone."""
    config = Config(data_folder=tmp_path)
    first = secret(config, "webhook")
    kept = rotate_webhook_secret(config)
    second, old = secret(config, "webhook").split(" ")
    assert old == first != second
    assert stat.S_IMODE(kept.stat().st_mode) == 0o600
    assert rotate_webhook_secret(config, finish=True) == kept
    assert secret(config, "webhook") == second
    assert [path.name for path in kept.parent.iterdir()] == ["webhook"]


def test_no_more_secrets_than_may_be(tmp_path: Path) -> None:
    """Each signs every webhook."""
    config = Config(data_folder=tmp_path)
    for _ in range(SECRETS_MAX - 1):
        rotate_webhook_secret(config)
    with pytest.raises(ConfigError, match="as many as may"):
        rotate_webhook_secret(config)
    assert len(secret(config, "webhook").split()) == SECRETS_MAX


def test_a_secret_in_the_environment_is_changed_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Several stand beside each other, by spaces; the command says so instead of writing a file that nobody reads."""
    one, two = ("whsec_" + base64.b64encode(bytes([number] * 32)).decode() for number in (1, 2))
    config = Config(data_folder=tmp_path)
    monkeypatch.setenv("DEMUR_WEBHOOK_SECRET", f" {one}  {two} ")
    assert secret(config, "webhook") == f"{one} {two}"
    with pytest.raises(ConfigError, match="DEMUR_WEBHOOK_SECRET is set: change it there"):
        rotate_webhook_secret(config)
    monkeypatch.setenv("DEMUR_WEBHOOK_SECRET", f"{one} whsec_short")
    with pytest.raises(ConfigError, match="expected whsec_"):
        secret(config, "webhook")
