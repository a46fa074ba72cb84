"""Words of reports."""

from __future__ import annotations


def counted(number: int, noun: str) -> str:
    """As in 1 concept, 2 concepts."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
