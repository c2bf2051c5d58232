"""Writes TOML 1.0 (https://toml.io/en/v1.0.0); the standard library only reads it."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import Final

_BARE: Final = re.compile(r"[A-Za-z0-9_-]+", re.ASCII)


def dumps(document: Mapping[str, object]) -> str:
    """Return strings, numbers, booleans, datetimes, sequences and mappings as TOML text; None is left out."""
    return "\n".join(_table(document, ())).strip() + "\n"


def header(*path: str) -> str:
    """Return the line that begins the table of that name."""
    return f"[{'.'.join(map(_key, path))}]"


def line(key: str, value: object) -> str:
    """Return one key with its value, anything that `dumps` takes but None."""
    return f"{_key(key)} = {_value(value)}"


def _table(table: Mapping[str, object], path: tuple[str, ...]) -> Iterator[str]:
    """Values first, then the tables below: TOML has no way back up."""
    below: list[tuple[str, object]] = []
    for key, value in table.items():
        if isinstance(value, Mapping) or _is_tables(value):
            below.append((key, value))
        elif value is not None:
            yield line(key, value)
    for key, value in below:
        here = (*path, key)
        if isinstance(value, Mapping):
            yield from ("", header(*here), *_table(value, here))
        elif isinstance(value, list | tuple):
            for item in value:
                yield from ("", f"[{header(*here)}]", *_table(item, here))


def _is_tables(value: object) -> bool:
    return isinstance(value, list | tuple) and bool(value) and all(isinstance(item, Mapping) for item in value)


def _key(key: str) -> str:
    return key if _BARE.fullmatch(key) else _text(key)


def _text(text: str) -> str:
    # JSON's escapes are a part of TOML's; only DEL needs one more. Lone surrogates are no text.
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")


def _value(value: object) -> str:  # noqa: PLR0911 - one return a type
    match value:
        case bool():
            return "true" if value else "false"
        case str():
            return _text(value)
        case int():
            return str(value)
        case float():
            return repr(value) if math.isfinite(value) else str(value)
        case datetime():
            return value.isoformat()
        case list() | tuple():
            return "[" + ", ".join(map(_value, value)) + "]"
        case Mapping():
            return "{" + ", ".join(f"{_key(key)} = {_value(item)}" for key, item in value.items()) + "}"
        case _:
            raise TypeError(f"TOML has no {type(value).__name__}")
