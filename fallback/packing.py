"""How a command's words become the bytes that a server reads (RESP): redis-py's connection, with fewer copies."""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache
from typing import Any, Final

Argument = str | bytes | int | float
# Arguments that are copied to send a command in one piece, at most.
PIECE_BYTES_MAX: Final = 65_536


class Head:
    """Words that begin many commands, after its name: packed once."""

    __slots__ = ("count", "packed")

    def __init__(self, words: Iterable[str | int]) -> None:
        encoded = [str(word).encode() for word in words]
        self.count = len(encoded)
        self.packed = b"".join(b"$%d\r\n%b\r\n" % (len(word), word) for word in encoded)


@lru_cache(maxsize=1_024)
def script_head(sha1: str, names: tuple[str, ...]) -> Head:
    """Return what every run of a script with these keys begins with, after EVALSHA."""
    return Head((sha1, len(names), *names))


def packing(connection: type) -> Any:
    """Return a class of connections that packs commands as ours do."""
    return type(connection.__name__, (Packing, connection), {})


class Packing:
    """A connection of redis-py that joins a command's parts once; its own does at each argument."""

    # redis-py's, which has no types.
    encoder: Any

    def pack_command(self, *args: Argument | Head) -> list[bytes]:
        """Return the command as the server reads it, in pieces: large arguments are not copied.

        A Head may stand after its name.
        """
        # As redis-py has it: the first argument may be two words, "SCRIPT LOAD".
        words = args[0].split() if isinstance(args[0], (str, bytes)) else args[:1]
        pieces: list[bytes] = []
        count = len(words) + len(args) - 1
        parts = [b""]
        for argument in (*words, *args[1:]):
            if type(argument) is Head:
                count += argument.count - 1
                parts.append(argument.packed)
                continue
            encoded = argument.encode() if type(argument) is str else self.encoder.encode(argument)
            size = len(encoded)
            if size > PIECE_BYTES_MAX:
                parts.append(b"$%d\r\n" % size)
                pieces += (b"".join(parts), encoded)
                parts = [b"\r\n"]
            else:
                parts.append(b"$%d\r\n%b\r\n" % (size, encoded))
        pieces.append(b"".join(parts))
        pieces[0] = b"*%d\r\n%b" % (count, pieces[0])
        return pieces

    def pack_commands(self, commands: Iterable[tuple[Argument, ...]]) -> list[bytes]:
        """Return a pipeline's commands, as `pack_command` does."""
        return [piece for command in commands for piece in self.pack_command(*command)]
