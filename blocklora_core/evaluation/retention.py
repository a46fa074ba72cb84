"""How much of a concept a merge keeps, and how far it moves the class."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from .intervals import DRAWS, LEVEL, Interval, bootstrap, interval_of, means, resampled_means
from .scores import image_alignment

Scores = Mapping[str, Sequence[float]]
"""Concept -> a score for each of its pictures."""


def retention(
    merged: Scores, single: Scores, seed: int = 0, draws: int = DRAWS, level: float = LEVEL, runs: int = 1
) -> Interval | None:
    """The mean score when merged over the mean score when alone, with an interval by the same bootstrap.

    Concepts count alike. The pictures of a concept are pairs, of the same prompt and noise, and are drawn as pairs.
    runs: as in `bootstrap`.
    None where the mean alone is 0. ValueError when `single` lacks a concept of `merged`, or numbers of pictures differ.
    """
    groups = [_pairs(name, merged[name], single.get(name, ())) for name in merged]
    centre = means(groups)
    if not centre[1]:
        return None
    drawn = resampled_means(groups, seed, draws, runs)
    return interval_of(centre[0] / centre[1], _ratio(drawn), level)


def drift(
    tuned: Mapping[str, Tensor],
    base: Mapping[str, Tensor],
    references: Mapping[str, Tensor],
    seed: int = 0,
    draws: int = DRAWS,
    level: float = LEVEL,
) -> Interval:
    """Class drift (Fig. 3 of the paper): how much nearer pictures of the class word come to the concept's references.

    Concept -> embeddings of pictures of its class word by the tuned model and by the base, of the same prompts and
    noise (G, D), and of its references (R, D), all of unit length. Image alignment, tuned minus base; 0 is no drift.
    """
    return bootstrap(list(drifts(tuned, base, references).values()), seed, draws, level)


def drifts(
    tuned: Mapping[str, Tensor], base: Mapping[str, Tensor], references: Mapping[str, Tensor]
) -> dict[str, list[float]]:
    """What `drift` is the mean of: concept -> the difference for each picture."""
    found = {}
    for name, pictures in tuned.items():
        after, before = (image_alignment(side, references[name]).tolist() for side in (pictures, base[name]))
        found[name] = (_pairs(name, after, before) @ torch.tensor([1.0, -1.0], dtype=torch.float64)).tolist()
    return found


def _pairs(name: str, merged: Sequence[float], single: Sequence[float]) -> Tensor:
    if len(merged) != len(single):
        raise ValueError(
            f"{name}: expected as many scores on both sides, of the same prompts and noise, "
            f"got {len(merged)} and {len(single)}."
        )
    return torch.tensor([merged, single], dtype=torch.float64).T


def _ratio(drawn: Tensor) -> Tensor:
    return torch.where(drawn[:, 1] > 0, drawn[:, 0] / drawn[:, 1], torch.nan)
