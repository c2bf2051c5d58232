from __future__ import annotations

from pathlib import Path

import pytest

from fallback.config import explain, load
from fallback.errors import ConfigError
from trainer.config import TrainerSettings


def test_every_key_is_explained() -> None:
    """Type, default and a meaning for each."""
    rows = {row.key: row for row in explain() if row.table == "trainer"}
    assert set(rows) == set(TrainerSettings.__struct_fields__)
    assert all(row.description and row.type for row in rows.values())
    assert rows["retrain_after_reviews"].default == "100"


def test_the_table_is_read_strictly(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A misspelt key names the nearest right one; a value out of range is refused."""
    monkeypatch.delenv("DEMUR_DATA", raising=False)
    path = tmp_path / "demur.toml"
    path.write_text("[trainer]\nholdout_share = 0.3\n")
    assert load(path).table("trainer", TrainerSettings).holdout_share == 0.3
    path.write_text("[trainer]\nholdout_shard = 0.3\n")
    with pytest.raises(ConfigError, match="holdout_share"):
        load(path)
    path.write_text("[trainer]\nholdout_share = 1.5\n")
    with pytest.raises(ConfigError, match="holdout_share"):
        load(path)
