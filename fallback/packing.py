"""How a command's words become the bytes that a server reads (RESP): redis-py's connection, with fewer copies."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

Argument = str | bytes | int | float
# Arguments that are copied to send a command in one piece, at most.
PIECE_BYTES_MAX: Final = 65_536


class Packing:
    """A connection of redis-py that joins a command's parts once; its own does at each argument."""

    # redis-py's, which has no types.
    encoder: Any

    def pack_command(self, *args: Argument) -> list[bytes]:
        """Return the command as the server reads it, in pieces: large arguments are not copied."""
        # As redis-py has it: the first argument may be two words, "SCRIPT LOAD".
        words = args[0].split() if isinstance(args[0], (str, bytes)) else args[:1]
        pieces: list[bytes] = []
        parts = [b"*%d\r\n" % (len(words) + len(args) - 1)]
        for argument in (*words, *args[1:]):
            encoded = argument.encode() if type(argument) is str else self.encoder.encode(argument)
            size = len(encoded)
            if size > PIECE_BYTES_MAX:
                parts.append(b"$%d\r\n" % size)
                pieces += (b"".join(parts), encoded)
                parts = [b"\r\n"]
            else:
                parts.append(b"$%d\r\n%b\r\n" % (size, encoded))
        return [*pieces, b"".join(parts)]

    def pack_commands(self, commands: Iterable[tuple[Argument, ...]]) -> list[bytes]:
        """Return a pipeline's commands, as `pack_command` does."""
        return [piece for command in commands for piece in self.pack_command(*command)]
