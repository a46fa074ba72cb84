"""Confidence intervals by a bootstrap in two stages: concepts are drawn anew, then pictures of each."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

DRAWS, LEVEL = 2000, 0.95
_AT_ONCE = 2_000_000
"""Numbers that are drawn at a time, to bound memory."""


class Interval(NamedTuple):
    """A mean and where it lies with the confidence asked for."""

    mean: float
    low: float
    high: float


def bootstrap(groups: Sequence[Sequence[float]], seed: int = 0, draws: int = DRAWS, level: float = LEVEL) -> Interval:
    """The mean of the groups' means, with a percentile interval.

    groups: concept by concept, the scores of its pictures. Each draw takes as many groups with replacement, and of each
    as many members. Seeded. ValueError without groups, or for one without members.
    """
    columns = [torch.tensor(group, dtype=torch.float64)[:, None] for group in groups]
    return interval_of(means(columns)[0], resampled_means(columns, seed, draws)[:, 0], level)


def means(groups: Sequence[Tensor]) -> Tensor:
    """Groups (M, K) -> (K,), the mean of the groups' means."""
    _check(groups)
    return torch.stack([group.mean(0) for group in groups]).mean(0)


def resampled_means(groups: Sequence[Tensor], seed: int, draws: int) -> Tensor:
    """Groups (M, K) float64, M may differ -> (draws, K): `means` of groups and members drawn anew each time.

    The K scores of a member stay together.
    """
    _check(groups)
    sizes = torch.tensor([len(group) for group in groups])
    padded = torch.nn.utils.rnn.pad_sequence(list(groups), batch_first=True)
    random = torch.Generator().manual_seed(seed)
    step = max(1, _AT_ONCE // padded.numel())
    parts = [_draw(padded, sizes, min(step, draws - start), random) for start in range(0, draws, step)]
    return torch.cat(parts)


def _draw(padded: Tensor, sizes: Tensor, draws: int, random: torch.Generator) -> Tensor:
    count, longest = padded.shape[:2]
    chosen = torch.randint(count, (draws, count), generator=random)
    size = sizes[chosen][..., None]
    members = (torch.rand(draws, count, longest, generator=random, dtype=torch.float64) * size).long()
    values = padded[chosen[..., None], members]
    # A shorter group draws only as many as it has.
    within = (torch.arange(longest) < size)[..., None]
    return ((values * within).sum(2) / size).mean(1)


def interval_of(mean: Tensor, drawn: Tensor, level: float) -> Interval:
    """The middle `level` of `drawn`, in which nan stands for draws that have no value."""
    tail = (1 - level) / 2
    low, high = torch.nanquantile(drawn, torch.tensor([tail, 1 - tail], dtype=drawn.dtype)).tolist()
    centre = float(mean)
    # Equal draws may differ from their mean by a rounding.
    return Interval(centre, min(low, centre), max(high, centre))


def _check(groups: Sequence[Tensor]) -> None:
    if not groups or not all(len(group) for group in groups):
        raise ValueError(f"Expected groups with at least one score each, got sizes {[len(group) for group in groups]}.")
