"""Orthogonal Adaptation (Po et al., CVPR 2024, arXiv 2312.02432): every concept's A is frozen to a few rows of an
orthogonal matrix that all concepts share, and only B learns. Concepts with different rows then have A_i A_j^T = 0.

Strangers share the matrix without exchanging it: it is made anew from its size. Its normal numbers come from a
generator that NumPy keeps the same for ever; QR rounds differently from machine to machine, but in the last digits of
float64, so that the float32 result differs at most in a last bit here and there.
"""

from __future__ import annotations

import hashlib

import numpy as np
import torch
from torch import Tensor

from ...concept.rows import Scheme, all_rows, index
from ..port import AdaptedLayer

SHARES = Scheme()
"""How the matrix's rows are dealt to slots, so that concepts in different slots never choose the same one."""


def shared_matrix(size: int) -> Tensor:
    """The orthogonal matrix for inputs of `size` features, one of all with equal chance: (size, size) float32, CPU."""
    normal = torch.from_numpy(np.random.RandomState(size).standard_normal((size, size)))
    q, r = torch.linalg.qr(normal)
    # QR leaves each column's sign open; a positive diagonal of R settles it.
    return (q * r.diagonal().sign()).T.float()


def chosen_rows(size: int, rank: int, slot: int | None, draw: str) -> Tensor:
    """`rank` different row numbers of a matrix of `size`, drawn by the text `draw` from `slot`'s share, or from all
    without one: int64 (rank,), ascending. ValueError when the share is too small."""
    share = index(all_rows(size) if slot is None else SHARES.rows(slot, size))
    if len(share) < rank:
        raise ValueError(f"expected a rank of at most {len(share)} for inputs of {size} features, got {rank}")
    seed = np.frombuffer(hashlib.sha256(draw.encode()).digest(), "<u4")
    picked = np.random.RandomState(seed).permutation(len(share))[:rank]
    return share[torch.from_numpy(np.sort(picked))]


class SharedBasis:
    """Deals out frozen A. draw: text that tells the concept, so that two without slots choose different rows."""

    def __init__(self, slot: int | None, draw: str):
        self.slot, self.draw = slot, draw
        self._matrices: dict[int, Tensor] = {}

    def down(self, name: str, layer: AdaptedLayer, rank: int) -> Tensor:
        """A of the layer `name`: (rank, n), orthonormal rows. ValueError for convolutions and for too high a rank."""
        if layer.convolution:
            raise ValueError(
                f"Orthogonal adaptation: expected Linears only, got the convolution {name}. Choose other layers."
            )
        size = layer.in_features
        try:
            rows = chosen_rows(size, rank, self.slot, f"{self.draw} {name}")
        except ValueError as error:
            raise ValueError(f"Orthogonal adaptation of {name}: {error}. Lower it, or give no slot.") from error
        if size not in self._matrices:
            self._matrices[size] = shared_matrix(size)
        return self._matrices[size][rows].clone()
