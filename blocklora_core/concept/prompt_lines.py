"""Prompts that stand for any concept: `{concept}` is where its name goes."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import cycle, islice

PLACEHOLDER = "{concept}"
PLAIN = f"a {PLACEHOLDER}"


def in_turn(lines: Sequence[str], called: str, count: int) -> list[str]:
    """`count` prompts of what calls the concept, taken from `lines` in turn; from PLAIN where none says anything."""
    filled = [line.strip() for line in lines if line.strip()] or [PLAIN]
    return [line.replace(PLACEHOLDER, called) for line in islice(cycle(filled), count)]
