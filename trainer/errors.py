"""The errors that only training raises."""

from __future__ import annotations

from fallback.errors import StateError


class NotTrainableError(StateError):
    """This model cannot be retrained here; the sentence says what was looked for and what was found."""


class ParityError(StateError):
    """The exported model does not compute what was trained."""
