"""KnOTS (Stoica et al., arXiv 2410.19735): one SVD aligns the concepts, then TIES on the right part.

[Delta W_1 | ... | Delta W_N] = U [S V_1^T | ... | S V_N^T]; TIES merges the S V_i^T, and U times the result is the
merge. The changes are low rank, so the SVD runs in the span of all ups, and the merge is exactly of rank
sum r_i at most. Per weight and over all its rows; a row-block concept is zero outside its rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import torch
from torch import Tensor

from ...cancel import patiently
from ...concept.concept import Stack
from ...concept.layer import Layer
from ...concept.rows import all_rows
from .joint import by_weight, joint_stack
from .ties import elected, trimmed

# Components, and entries, below this share of the largest component are rounding. They must have no vote: a row block
# is zero on the others' components, and TIES would halve whatever a rounded zero happens to agree with.
_ROUNDING = torch.finfo(torch.float32).eps


def knots(stack: Stack, density: float = 0.2, scale: float = 1.0) -> Stack:
    """The stack merged by KnOTS with TIES: concepts without layers and one plain member with the result.

    density: share of the entries of S V_i^T that each concept keeps. scale: factor on the result, the paper's lambda.
    Solved in float64, given in float32.
    """
    layers = {
        name: patiently(partial(_merged, held, density), _cost(held)).scaled(scale) for name, held in by_weight(stack)
    }
    return joint_stack(stack, "knots", layers)


def _cost(held: Sequence[Layer]) -> float:
    rank = sum(layer.rank for layer in held)
    m, n = held[0].out_features, held[0].down[0].numel()
    return float(2 * (m + n * len(held)) * rank**2 + 20 * rank**3 + 10 * n * rank * len(held))


def _merged(held: Sequence[Layer], density: float) -> Layer:
    basis, rights = _aligned(held)
    kept = max(1, int(density * rights[0].numel()))
    first, right = held[0], elected([trimmed(right, kept) for right in rights])
    up = basis.float().reshape(*basis.shape, *first.up.shape[2:])
    down = right.float().reshape(-1, *first.down.shape[1:])
    return Layer(up, down, all_rows(first.out_features), first.out_features)


def _aligned(held: Sequence[Layer]) -> tuple[Tensor, list[Tensor]]:
    """U (m, k) and each concept's S V_i^T (k, n), in float64."""
    ups = torch.cat([layer.scale * layer.full_up().flatten(1).double() for layer in held], 1)
    span, mixes = torch.linalg.qr(ups)
    downs = [layer.down.flatten(1).double() for layer in held]
    inside = [mix @ down for mix, down in zip(mixes.split([len(down) for down in downs], 1), downs, strict=True)]
    # The SVD of the wide matrix needs no more than its triangular factor: U and S are the same.
    triangle = torch.linalg.qr(torch.cat(inside, 1).T, mode="r").R.T
    left, values, _ = torch.linalg.svd(triangle, full_matrices=False)
    limit = float(_ROUNDING * values[0])
    left = left[:, : max(1, int((values > limit).sum()))]
    rights = [left.T @ part for part in inside]
    return span @ left, [right.masked_fill(right.abs() <= limit, 0.0) for right in rights]
