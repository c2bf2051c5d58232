"""Reads one table of TOML into one struct, key by key: an error names the key, what was expected and what came."""

from __future__ import annotations

import difflib
import math
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, Final, TypeVar

import msgspec

from fallback.errors import ConfigError

if TYPE_CHECKING:
    from fallback.config import Config

_SHOWN_CHARS_MAX: Final = 80

T = TypeVar("T", bound=msgspec.Struct)


class Table(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A table of demur.toml, whose keys are the fields; what their types do not say of them is checked by itself."""

    def check(self, config: Config) -> None:
        """Raise ConfigError where a key, or two together, of this table or of `config`'s others, can never do."""

    def check_here(self) -> None:
        """Raise ConfigError where a file that is named does not do: on this machine, now."""


def read_table(name: str, table: Mapping[str, Any], type_: type[T]) -> T:
    """Return `table`, called `name` in errors, as a `type_`; raises ConfigError."""
    fields = {field.name: field.type for field in msgspec.structs.fields(type_)}
    check_keys(table, list(fields), f"{name}.", "key")
    return type_(**{key: _value(f"{name}.{key}", value, fields[key]) for key, value in table.items()})


def _value(name: str, value: object, type_: Any) -> object:
    try:
        found: object = msgspec.convert(value, type_)
    except msgspec.ValidationError as error:
        raise ConfigError(f"{name}: expected {type_text(type_)}, got {shown(value)}") from error
    if isinstance(found, float) and not math.isfinite(found):
        raise ConfigError(f"{name}: expected a finite number, got {found}")
    return found


def check_keys(table: Iterable[str], known: list[str], prefix: str, what: str) -> None:
    """Raise ConfigError for the first key that is not known, with the nearest one that is."""
    for key in table:
        if key not in known:
            near = difflib.get_close_matches(key, known, n=1, cutoff=0.5)
            hint = f"did you mean {prefix}{near[0]}?" if near else f"known: {', '.join(sorted(known))}"
            raise ConfigError(f"{prefix}{key[:100]}: no such {what}; {hint}")


def description(type_: Any) -> str:
    """Return what msgspec.Meta says the field is."""
    info = msgspec.inspect.type_info(type_)
    json = info.extra_json_schema if isinstance(info, msgspec.inspect.Metadata) else None
    return str((json or {}).get("description", ""))


def type_text(type_: Any) -> str:
    """Return a type and its bounds in words."""
    info = msgspec.inspect.type_info(type_)
    if isinstance(info, msgspec.inspect.Metadata):
        info = info.type
    match info:
        case msgspec.inspect.BoolType():
            return "true or false"
        case msgspec.inspect.StrType():
            return "text"
        case msgspec.inspect.LiteralType(values=values):
            return " or ".join(f'"{value}"' for value in values)
        case msgspec.inspect.IntType() | msgspec.inspect.FloatType():
            return ("whole number" if isinstance(info, msgspec.inspect.IntType) else "number") + _range(info)
        case msgspec.inspect.VarTupleType() | msgspec.inspect.ListType():
            return _list_text(info)
        case _:
            return type(info).__name__.removesuffix("Type").lower()


def _list_text(info: msgspec.inspect.VarTupleType | msgspec.inspect.ListType) -> str:
    of = info.item_type.type if isinstance(info.item_type, msgspec.inspect.Metadata) else info.item_type
    if isinstance(of, msgspec.inspect.FloatType):
        return "list of numbers" + _range(of)
    return "list of texts" if isinstance(of, msgspec.inspect.StrType) else "list"


def _range(info: msgspec.inspect.IntType | msgspec.inspect.FloatType) -> str:
    bounds = (("> ", info.gt), (">= ", info.ge), ("< ", info.lt), ("<= ", info.le))
    told = [
        sign + (str(bound) if isinstance(bound, int) else f"{bound:.15g}")
        for sign, bound in bounds
        if bound is not None
    ]
    return f" {', '.join(told)}" if told else ""


def value_text(value: object) -> str:
    """Return a default as TOML would write it."""
    match value:
        case bool():
            return str(value).lower()
        case str():
            return f'"{value}"'
        case tuple():
            return "[" + ", ".join(map(value_text, value)) + "]"
        case _:
            return str(value)


def shown(value: object) -> str:
    """Return a wrong value for an error message, cut short."""
    text = repr(value)
    short = text if len(text) <= _SHOWN_CHARS_MAX else f"{text[:_SHOWN_CHARS_MAX]}..."
    return f"{short} ({type(value).__name__})"
