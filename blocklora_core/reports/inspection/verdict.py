"""Whether concepts will bleed into each other, in plain words."""

from __future__ import annotations

from .figures import PairCrosstalk, PairFigures

LOW_CROSSTALK, HIGH_CROSSTALK = 0.35, 1.0
"""Crosstalk of two: up to the first, merges of two kept every concept's image alignment; at the second each answers to
the other as if to itself. Measured by `bench identity`: see the help page of BlockLoRA Inspect."""
LOW_INTERFERENCE, HIGH_INTERFERENCE = 0.5, 1.0
"""Interference of all others with one: up to the first it kept 95 % of its image alignment, from the second on about
two thirds and less. Measured likewise."""


_UNMATCHED = "Layers that only one of them names may be the same under other names: connect MODEL and CLIP, which know."


def outlook(interference: float) -> str:
    """What becomes of a concept to whose inputs all others answer so loudly."""
    if interference <= LOW_INTERFERENCE:
        return "stays itself"
    return "will blend" if interference >= HIGH_INTERFERENCE else "may blend"


def verdict(pair: PairFigures, solved: str) -> str:
    """Whether `pair` will bleed, by which method, and because of what. solved: Inspection.solved."""
    told = _verdict(pair, solved)
    return told if pair.matched or not pair.layers else f"{told} {_UNMATCHED}"


def _verdict(pair: PairFigures, solved: str) -> str:
    title = f"{pair.first} and {pair.second}"
    if not pair.layers and not pair.matched:
        return (
            f"{title}: cannot tell. Their files name no weight in common, as those of different trainers do: connect "
            "MODEL and CLIP, which know whose names mean the same."
        )
    if not pair.layers:
        return f"{title} will not bleed through shared weights: they change no weight in common."
    rows = _rows(pair)
    if pair.summed is None:
        return f"{title}: {_without_grams(pair)} {rows}"
    summed = f"per_row {_will(pair.summed)} ({_answer(pair, pair.summed)})"
    if pair.solved is None:
        return f"{title}: {summed}. {rows}"
    return f"{title}: {summed}; {solved} {_will(pair.solved)} ({_answer(pair, pair.solved)}). {rows}"


def _will(crosstalk: PairCrosstalk) -> str:
    if max(crosstalk) <= LOW_CROSSTALK:
        return "will not bleed"
    return "will bleed" if max(crosstalk) >= HIGH_CROSSTALK else "may bleed"


def _answer(pair: PairFigures, crosstalk: PairCrosstalk) -> str:
    listener, speaker = (pair.second, pair.first) if crosstalk[0] >= crosstalk[1] else (pair.first, pair.second)
    return f"{listener} answers to {speaker}'s inputs at {max(crosstalk):.0%} of its own"


def _without_grams(pair: PairFigures) -> str:
    if pair.shared_rows:
        return "will bleed, as far as rows tell."
    return "cannot tell. Without Grams in both files it is not known how they answer to each other's inputs."


def _rows(pair: PairFigures) -> str:
    if not pair.shared_rows:
        return "Their rows are their own."
    return f"They share {pair.shared_rows} rows in {pair.shared_layers} layers, at a mean cosine of {pair.cosine:.2f}."
