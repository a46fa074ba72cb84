"""LoHa and LoKr as the low-rank products they are: what the closed form can solve."""

from __future__ import annotations

import torch
from torch import Tensor

from ..concept.adapters import Adapter
from ..concept.layer import Layer
from ..concept.rows import all_rows

_LOHA = ("hada_w1_a", "hada_w1_b", "hada_w2_a", "hada_w2_b")


def as_product(adapter: Adapter, shape: tuple[int, ...]) -> Layer | None:
    """The same change of a matrix of `shape` (m, n) as up @ down, exactly, in float32.

    None where there is none of less than full rank: a DoRA or OFT, which depends on the weight, a LoKr whose second
    factor is whole, a convolution, a vector, a whole difference.
    """
    words = set(adapter.tensors)
    if len(shape) != 2 or not adapter.fixed:
        return None
    if words <= {*_LOHA, "alpha"}:
        found = _of_loha(adapter)
    elif words <= {"lokr_w1", "lokr_w1_a", "lokr_w1_b", "lokr_w2_a", "lokr_w2_b", "alpha"}:
        found = _of_lokr(adapter)
    else:
        return None
    up, down, rank = found
    if (up.shape[0], down.shape[1]) != shape or up.shape[1] >= min(shape):
        return None
    scale = float(adapter.tensors["alpha"]) / rank if "alpha" in adapter.tensors else 1.0
    return Layer(up.contiguous(), down.contiguous(), all_rows(shape[0]), shape[0], scale * adapter.strength)


def _of_loha(adapter: Adapter) -> tuple[Tensor, Tensor, int]:
    """(A1 B1) * (A2 B2), entry by entry, is up @ down of rank r1 r2: all products of a column of A1 and one of A2, and
    of a row of B1 and one of B2. Also gives the rank that alpha goes with."""
    a1, b1, a2, b2 = (adapter.tensors[word].float() for word in _LOHA)
    up = torch.einsum("mi,mj->mij", a1, a2).flatten(1)
    down = torch.einsum("in,jn->ijn", b1, b2).flatten(0, 1)
    return up, down, len(b1)


def _of_lokr(adapter: Adapter) -> tuple[Tensor, Tensor, int]:
    """kron(W1, A B) = kron(W1, A) kron(I, B), of rank b r for W1 (a, b). Also gives the rank that alpha goes with."""
    parts = {word: value.float() for word, value in adapter.tensors.items()}
    first = parts["lokr_w1"] if "lokr_w1" in parts else parts["lokr_w1_a"] @ parts["lokr_w1_b"]
    a, b = parts["lokr_w2_a"], parts["lokr_w2_b"]
    return torch.kron(first, a), torch.kron(torch.eye(first.shape[1]), b), len(b)
