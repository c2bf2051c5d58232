"""Structured logs; `fallback.logs` owns them."""

from fallback.logs import configure

__all__ = ["configure"]
