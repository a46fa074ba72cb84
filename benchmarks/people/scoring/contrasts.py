"""Is the default better than, or at least no worse than, another arm? Pairs of pictures of one prompt and noise."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from blocklora_core.evaluation.intervals import LEVEL, Interval, interval_of, means, resampled_means

MARGIN = 0.02
"""By how much a score may be lower and still count as no worse."""
DRAWS = 10_000

Groups = Mapping[str, Sequence[float]]
"""Concept -> a score for each picture, run after run."""


@dataclass(frozen=True)
class Contrast:
    """difference: the first's mean over concepts less the second's. p: two-sided, by the bootstrap's share of draws on
    the other side of zero."""

    difference: Interval
    p: float

    @property
    def no_worse(self) -> bool:
        return self.difference.low > -MARGIN


def contrast(first: Groups, second: Groups, runs: int, draws: int = DRAWS, seed: int = 0) -> Contrast:
    """Concepts are drawn anew, then runs, then pictures, as pairs. ValueError when the two differ in concepts or
    numbers of pictures."""
    if {name: len(scores) for name, scores in first.items()} != {name: len(scores) for name, scores in second.items()}:
        raise ValueError("Contrast: expected the same concepts and as many pictures of each on both sides.")
    groups = [torch.tensor([first[name], second[name]], dtype=torch.float64).T for name in first]
    centre, drawn = means(groups), resampled_means(groups, seed, draws, runs)
    differences = drawn[:, 0] - drawn[:, 1]
    return Contrast(interval_of(centre[0] - centre[1], differences, LEVEL), _p(differences))


def _p(differences: Tensor) -> float:
    """Never nought: a draw that was not made might have fallen on the other side."""
    count = len(differences)
    tails = [(int((side <= 0).sum()) + 1) / (count + 1) for side in (differences, -differences)]
    return min(1.0, 2 * min(tails))


def holm(values: Mapping[str, float]) -> dict[str, float]:
    """p values, corrected for being several (Holm 1979), in the order given."""
    ordered, highest = {}, 0.0
    for place, name in enumerate(sorted(values, key=lambda name: values[name])):
        highest = max(highest, min(1.0, (len(values) - place) * values[name]))
        ordered[name] = highest
    return {name: ordered[name] for name in values}
