"""Whether two concepts will bleed into each other, in plain words."""

from __future__ import annotations

from .figures import Ears, PairFigures

DEAF, LOUD = 0.35, 0.8
"""Crosstalk below which the demo's concepts kept apart, and above which they did not: see the help page of BlockLoRA
Inspect. No files lay between the two."""


def verdict(pair: PairFigures, solved: str) -> str:
    """Whether `pair` will bleed, by which method, and because of what. solved: Inspection.solved."""
    title = f"{pair.first} and {pair.second}"
    if not pair.layers:
        return f"{title} will not bleed through shared weights: they change no weight in common."
    rows = _rows(pair)
    if pair.summed is None:
        return f"{title}: {_without_grams(pair)} {rows}"
    summed = f"per_row {_will(pair.summed)} ({_heard(pair, pair.summed)})"
    if pair.solved is None:
        return f"{title}: {summed}. {rows}"
    return f"{title}: {summed}; {solved} {_will(pair.solved)} ({_heard(pair, pair.solved)}). {rows}"


def _will(ears: Ears) -> str:
    if max(ears) <= DEAF:
        return "will not bleed"
    return "will bleed" if max(ears) >= LOUD else "may bleed"


def _heard(pair: PairFigures, ears: Ears) -> str:
    listener, speaker = (pair.second, pair.first) if ears[0] >= ears[1] else (pair.first, pair.second)
    return f"{listener} answers to {speaker}'s inputs at {max(ears):.0%} of its own"


def _without_grams(pair: PairFigures) -> str:
    if pair.shared_rows:
        return "will bleed, as far as rows tell."
    return "cannot tell. Without Grams in both files it is not known how they answer to each other's inputs."


def _rows(pair: PairFigures) -> str:
    if not pair.shared_rows:
        return "Their rows are their own."
    return f"They share {pair.shared_rows} rows in {pair.shared_layers} layers, at a mean cosine of {pair.cosine:.2f}."
