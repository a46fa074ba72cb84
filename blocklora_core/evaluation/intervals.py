"""Confidence intervals by a bootstrap in stages: concepts are drawn anew, then the seeds each was trained with, then
pictures of each."""

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


def bootstrap(
    groups: Sequence[Sequence[float]], seed: int = 0, draws: int = DRAWS, level: float = LEVEL, runs: int = 1
) -> Interval:
    """The mean of the groups' means, with a percentile interval.

    groups: concept by concept, the scores of its pictures. runs: trainings of each concept, with a seed each, whose
    pictures follow each other, as many of each. Each draw takes as many groups with replacement, of each as many runs
    and of each as many pictures: what a training got right or wrong, all of its pictures share. Seeded. ValueError
    without groups, for one without members, and for one that `runs` does not divide.
    """
    columns = [torch.tensor(group, dtype=torch.float64)[:, None] for group in groups]
    return interval_of(means(columns)[0], resampled_means(columns, seed, draws, runs)[:, 0], level)


def means(groups: Sequence[Tensor]) -> Tensor:
    """Groups (M, K) -> (K,), the mean of the groups' means."""
    _check(groups)
    return torch.stack([group.mean(0) for group in groups]).mean(0)


def resampled_means(groups: Sequence[Tensor], seed: int, draws: int, runs: int = 1) -> Tensor:
    """Groups (M, K) float64, M may differ -> (draws, K): `means` of groups, runs and members drawn anew each time.

    The K scores of a member stay together.
    """
    _check(groups, runs)
    sizes = torch.tensor([len(group) // runs for group in groups])
    padded = torch.nn.utils.rnn.pad_sequence([group.unflatten(0, (runs, -1)).transpose(0, 1) for group in groups])
    padded = padded.permute(1, 2, 0, 3)
    random = torch.Generator().manual_seed(seed)
    step = max(1, _AT_ONCE // padded.numel())
    parts = [_draw(padded, sizes, min(step, draws - start), random) for start in range(0, draws, step)]
    return torch.cat(parts)


def _draw(padded: Tensor, sizes: Tensor, draws: int, random: torch.Generator) -> Tensor:
    """padded: (groups, runs, members, K); sizes: members of each group's runs -> (draws, K)."""
    count, runs, longest = padded.shape[:3]
    chosen = torch.randint(count, (draws, count), generator=random)
    run = torch.randint(runs, (draws, count, runs), generator=random) if runs > 1 else chosen.new_zeros(draws, count, 1)
    size = sizes[chosen][..., None, None]
    members = (torch.rand(draws, count, runs, longest, generator=random, dtype=torch.float64) * size).long()
    values = padded[chosen[..., None, None], run[..., None], members]
    # A shorter group draws only as many as it has.
    within = (torch.arange(longest) < size)[..., None]
    return ((values * within).sum(3) / size).mean((1, 2))


def interval_of(mean: Tensor, drawn: Tensor, level: float) -> Interval:
    """The middle `level` of `drawn`, in which nan stands for draws that have no value."""
    tail = (1 - level) / 2
    low, high = torch.nanquantile(drawn, torch.tensor([tail, 1 - tail], dtype=drawn.dtype)).tolist()
    centre = float(mean)
    # Equal draws may differ from their mean by a rounding.
    return Interval(centre, min(low, centre), max(high, centre))


def _check(groups: Sequence[Tensor], runs: int = 1) -> None:
    sizes = [len(group) for group in groups]
    if not groups or not all(sizes):
        raise ValueError(f"Expected groups with at least one score each, got sizes {sizes}.")
    if runs < 1 or any(size % runs for size in sizes):
        raise ValueError(f"Expected as many scores of each of {runs} runs, got groups of {sizes}.")
