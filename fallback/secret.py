"""The secrets that never stand in demur.toml: what signs webhooks, what draws audits; and how the first is changed."""

from __future__ import annotations

import base64
import contextlib
import os
import secrets
import tempfile
from pathlib import Path
from types import MappingProxyType
from typing import Final

from fallback.config import Config
from fallback.errors import ConfigError

SECRETS_MAX: Final = 4
_SECRET_BYTES: Final = 32
_SECRETS: Final = MappingProxyType({"webhook": ("DEMUR_WEBHOOK_SECRET", "whsec_"), "audit": ("DEMUR_AUDIT_SECRET", "")})


def secret(config: Config, name: str) -> str:
    """Return the secret `name` ("webhook" or "audit") from its environment variable, else from <data>/secrets/<name>.

    Made there (32 random bytes, base64, file mode 0600) the first time it is asked for; processes that ask at once get
    the same. A webhook secret has the form whsec_<base64 of 24 to 64 bytes> (Standard Webhooks 1.0.0); while one takes
    another's place there are several, the newest first, separated by spaces.
    """
    if name not in _SECRETS:
        raise ValueError(f"no secret is called {name!r}")
    variable, prefix = _SECRETS[name]
    given = os.environ.get(variable)
    if given:
        return _checked_secret(variable, given, prefix)
    kept = _kept(config, name)
    if not kept.exists():
        _keep(kept, _fresh(prefix))
    return _checked_secret(str(kept), kept.read_text(encoding="ascii").strip(), prefix)


def rotate_webhook_secret(config: Config, *, finish: bool = False) -> Path:
    """Put a new secret before the one that webhooks are signed with, or with `finish` forget all but the newest.

    Returns the file. Processes that sign read it when they start. Raises ConfigError where the environment holds the
    secret, and where there are as many as may be.
    """
    variable, prefix = _SECRETS["webhook"]
    if os.environ.get(variable):
        raise ConfigError(f"{variable} is set: change it there, e.g. to '<new> <old>' (one made now: {_fresh(prefix)})")
    kept, known = _kept(config, "webhook"), secret(config, "webhook").split()
    if not finish and len(known) >= SECRETS_MAX:
        raise ConfigError(f"{kept}: holds {SECRETS_MAX} secrets already, as many as may; drop the old ones first")
    _keep(kept, " ".join(known[:1] if finish else [_fresh(prefix), *known]), replace=True)
    return kept


def _kept(config: Config, name: str) -> Path:
    return config.data_folder / "secrets" / name


def _fresh(prefix: str) -> str:
    return prefix + base64.b64encode(secrets.token_bytes(_SECRET_BYTES)).decode()


def _checked_secret(where: str, value: str, prefix: str) -> str:
    """Refuse a secret that could not sign; the message never shows it."""
    if not prefix:
        return value
    parts = value.split()
    if not 1 <= len(parts) <= SECRETS_MAX:
        raise ConfigError(f"{where}: expected 1 to {SECRETS_MAX} secrets, separated by spaces, got {len(parts)}")
    for part in parts:
        try:
            count = len(base64.b64decode(part.removeprefix(prefix), validate=True)) if part.startswith(prefix) else 0
        except ValueError:
            count = 0
        if not 24 <= count <= 64:  # noqa: PLR2004 - the bounds that Standard Webhooks 1.0.0 sets
            raise ConfigError(f"{where}: expected {prefix}<base64 of 24 to 64 bytes>, got something else")
    return " ".join(parts)


def _keep(path: Path, value: str, *, replace: bool = False) -> None:
    """Write once, nobody reads half a secret: whoever links first wins, or with `replace` whoever comes last."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=f".{path.name}-", dir=path.parent)
    try:
        with os.fdopen(handle, "w", encoding="ascii") as file:
            file.write(value + "\n")
            file.flush()
            os.fsync(file.fileno())
        if replace:
            Path(name).replace(path)
        else:
            with contextlib.suppress(FileExistsError):
                os.link(name, path)
    finally:
        Path(name).unlink(missing_ok=True)
