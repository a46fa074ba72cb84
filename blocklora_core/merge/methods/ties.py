"""TIES (Yadav et al., arXiv 2306.01708): trim each concept's change, elect a sign per entry, average those that agree.

Per weight and over all its rows; a row-block concept is zero outside its rows. The paper trims over the whole model at
once. A strength scales the change before the election.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from ...cancel import check
from ...concept.concept import Stack
from ...concept.layer import Layer
from .joint import by_weight, joint_stack

_SAMPLE = 2**13
"""Values that guess where to trim."""

_AT_ONCE = 2**18
"""Entries that an election looks at together."""


def ties(stack: Stack, density: float = 0.2, scale: float = 1.0) -> Stack:
    """The stack merged by TIES: concepts without layers and one plain member with the dense result.

    density: share of the entries of a weight that each concept keeps, those of largest magnitude. scale: factor on the
    result, the paper's lambda. One weight at a time, as large as in the model for each concept.
    """
    layers = {name: Layer.of_dense(_merged(held, density)).scaled(scale) for name, held in by_weight(stack)}
    return joint_stack(stack, "ties", layers)


def _merged(held: Sequence[Layer], density: float) -> Tensor:
    kept = max(1, int(density * math.prod(held[0].weight_shape)))
    return elected([trimmed(layer.dense().flatten(1), kept) for layer in held]).reshape(held[0].weight_shape)


def trimmed(change: Tensor, kept: int) -> Tensor:
    """`change` with all but the `kept` entries of largest magnitude at zero; equals of the last one stay too."""
    check()
    if kept >= change.numel():
        return change
    magnitudes = change.abs()
    return change.masked_fill_(magnitudes < _largest(magnitudes.flatten(), kept), 0.0)


def _largest(values: Tensor, rank: int) -> Tensor:
    """The `rank`-th largest of `values` (n,). A sample brackets it, so that few values need sorting."""
    sample = values[:: values.numel() // _SAMPLE | 1].sort(descending=True).values
    share, last = rank / values.numel(), len(sample) - 1
    margin = 4 * math.sqrt(len(sample) * share * (1 - share)) + 1
    high, low = (sample[min(last, max(0, int(share * last + by)))] for by in (-margin, margin))
    above, near = int((values > high).sum()), values[(values >= low) & (values <= high)]
    if not above < rank <= above + near.numel():
        above, near = 0, values
    return near.topk(rank - above, sorted=False).values.min()


def elected(votes: Sequence[Tensor]) -> Tensor:
    """Per entry of changes of one shape (m, n): the sign of their sum, and the mean of the entries of that sign."""
    # A few rows at a time stay in the processor's cache through all the steps.
    rows = max(1, _AT_ONCE // (len(votes) * votes[0].shape[1]))
    return torch.cat([_elect(torch.stack(part)) for part in zip(*(vote.split(rows) for vote in votes), strict=True)])


def _elect(votes: Tensor) -> Tensor:
    check()
    sign = torch.where(votes.sum(0) >= 0, 1.0, -1.0).to(votes)
    agreeing = (votes * sign).clamp_(min=0)
    return sign * agreeing.sum(0) / (agreeing > 0).sum(0).clamp_(min=1)
