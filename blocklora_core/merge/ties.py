"""TIES (Yadav et al., arXiv 2306.01708): trim each concept's change, elect a sign per entry, average those that agree.

Per weight and over all its rows; a row-block concept is zero outside its rows. The paper trims over the whole model at
once. A strength scales the change before the election.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from ..lora import Layer, Stack
from ..rows import index
from .joint import by_weight, joined


def ties(stack: Stack, density: float = 0.2, scale: float = 1.0) -> Stack:
    """The stack merged by TIES: concepts without layers and one plain member with the dense result.

    density: share of the entries of a weight that each concept keeps, those of largest magnitude. scale: factor on the
    result, the paper's lambda. Memory is bounded by a few copies of one weight, whatever the number of concepts.
    """
    layers = {name: Layer.of_dense(_merged(held, density)).scaled(scale) for name, held in by_weight(stack)}
    return joined(stack, "ties", layers)


def _merged(held: Sequence[Layer], density: float) -> Tensor:
    shape = held[0].weight_shape
    election = Election(shape[0], math.prod(shape[1:]), torch.float32, held[0].up.device)
    for layer in held:
        kept = trimmed(layer.delta().flatten(1).to(election.sums), number_kept(density, election.size))
        election.add(kept, index(layer.rows, kept.device))
    return election.mean_of_agreeing().reshape(shape)


def number_kept(density: float, size: int) -> int:
    """How many of `size` entries trimming leaves: at least one."""
    return max(1, int(density * size))


def trimmed(change: Tensor, kept: int) -> Tensor:
    """`change` with all but the `kept` entries of largest magnitude at zero; equals of the last one stay too."""
    if kept >= change.numel():
        return change
    magnitudes = change.abs()
    limit = magnitudes.flatten().kthvalue(change.numel() - kept + 1).values
    return change.masked_fill(magnitudes < limit, 0.0)


class Election:
    """Running sums of (m, n) changes, positive and negative apart: all that the sign election needs to know."""

    def __init__(self, m: int, n: int, dtype: torch.dtype, device: torch.device) -> None:
        self.size = m * n
        self.sums = torch.zeros(2, m, n, dtype=dtype, device=device)
        self.counts = torch.zeros_like(self.sums)

    def add(self, change: Tensor, rows: Tensor) -> None:
        """Counts in one concept's change (|rows|, n) of the given rows."""
        for side, part in enumerate((change.clamp(min=0), change.clamp(max=0))):
            self.sums[side].index_add_(0, rows, part)
            self.counts[side].index_add_(0, rows, part.ne(0).to(part.dtype))

    def mean_of_agreeing(self) -> Tensor:
        """(m, n): per entry the sign of the sum of all, and the mean of the entries of that sign."""
        means = self.sums / self.counts.clamp(min=1)
        return torch.where(self.sums.sum(0) >= 0, means[0], means[1])
