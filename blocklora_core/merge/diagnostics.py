"""How much concepts stand in each other's way, layer by layer (BlockLoRA, arXiv 2503.08575, Fig. 4).

Both figures are exactly 0 where concepts hold rows of their own. Strengths count.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import combinations

import torch
from torch import Tensor

from ..cancel import patiently
from ..concept.concept import Stack
from ..concept.layer import Layer
from ..concept.rows import index, overlap, positions
from .methods.joint import by_weight


def inner_product(a: Layer, b: Layer) -> float:
    """<Delta W_a, Delta W_b> over all entries of one weight, in float64 and without either (m, n) matrix.

    It is the sum over (B_a^T B_b) * (A_a A_b^T), with the B cut down to the rows that both hold.
    """
    shared = overlap(a.rows, b.rows)
    if not shared:
        return 0.0
    ups = [_matrix(layer.up)[positions(layer.rows, shared).to(layer.up.device)] for layer in (a, b)]
    downs = [_matrix(layer.down) for layer in (a, b)]
    cost = (len(ups[0]) + downs[0].shape[1]) * a.rank * b.rank
    return a.scale * b.scale * patiently(lambda: float(((ups[0].T @ ups[1]) * (downs[0] @ downs[1].T)).sum()), cost)


def cosine(a: Layer, b: Layer) -> float:
    """Cosine of two changes of one weight, from -1 to 1; 0 when one of them is zero."""
    product = inner_product(a, b)
    if product == 0.0:
        return 0.0
    return product / math.sqrt(inner_product(a, a) * inner_product(b, b))


def layer_cosines(stack: Stack) -> dict[str, float]:
    """Each weight that several concepts change -> mean cosine over all pairs of them."""
    return {name: _mean_cosine(held) for name, held in by_weight(stack) if len(held) > 1}


def layer_sign_conflicts(stack: Stack) -> dict[str, float]:
    """Each weight that several concepts change -> share of its entries where changes of both signs meet."""
    return {name: _conflicts(held) for name, held in by_weight(stack) if len(held) > 1}


def _mean_cosine(held: Sequence[Layer]) -> float:
    cosines = [cosine(a, b) for a, b in combinations(held, 2)]
    return math.fsum(cosines) / len(cosines)


def _conflicts(held: Sequence[Layer]) -> float:
    if not any(overlap(a.rows, b.rows) for a, b in combinations(held, 2)):
        return 0.0
    shape = held[0].weight_shape
    found = torch.zeros(2, shape[0], math.prod(shape[1:]), dtype=torch.bool, device=held[0].up.device)
    for layer in held:
        rows, delta = index(layer.rows, found.device), layer.delta().flatten(1)
        for seen, here in zip(found, (delta > 0, delta < 0), strict=True):
            seen[rows] |= here
    return float(found.all(0).double().mean())


def _matrix(factor: Tensor) -> Tensor:
    return factor.flatten(1).double()
