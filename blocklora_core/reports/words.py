"""Words of reports."""

from __future__ import annotations

from collections.abc import Mapping, Sequence


def counted(number: int, noun: str) -> str:
    """As in 1 concept, 2 concepts."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def without_place(unused: Mapping[str, Sequence[str]]) -> list[str]:
    """A line for each file some of whose layers the model does not have. unused: file -> those layers."""
    return [
        f"{label}: {len(stems)} layers have no place in this model and were left out, e.g. {stems[0]}"
        for label, stems in unused.items()
    ]
