"""Solves with a sum of packed Grams: S = U U^T + D, where U (n, K) holds all eigenpairs and D is diagonal.

Where fewer eigenpairs are known than there are features, Woodbury's identity needs a K x K matrix only. Elsewhere S
itself, n x n, is the smaller one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Protocol

import torch
from torch import Tensor

from ..concept.gram import Gram

CPU = torch.device("cpu")


def precision(device: torch.device) -> torch.dtype:
    """float64, except on Apple's GPUs, which have none."""
    return torch.float32 if device.type == "mps" else torch.float64


@dataclass(frozen=True)
class PackedSum:
    """The sum of several Grams of one size n, on one device. roots: each Gram's, (n, k); diagonals: (Grams, n)."""

    roots: tuple[Tensor, ...]
    diagonals: Tensor

    @classmethod
    def of(cls, grams: Sequence[Gram], device: torch.device = CPU) -> PackedSum:
        dtype = precision(device)

        # Moved before they are widened, and all at once: what the files hold is a quarter of that.
        def there(parts: Sequence[Tensor]) -> Tensor:
            return torch.cat(tuple(parts), -1).to(device).to(dtype)

        roots = there([gram.vectors for gram in grams]) * there([gram.values for gram in grams]).sqrt()
        diagonals = there([gram.diagonal for gram in grams]).reshape(len(grams), -1)
        return cls(roots.split([gram.values.shape[0] for gram in grams], 1), diagonals)

    @property
    def mean_energy(self) -> float:
        """tr(S) / n."""
        energy = torch.stack([root.square().sum() for root in self.roots]).sum() + self.diagonals.sum()
        return float(energy) / self.diagonals.shape[1]

    @property
    def cost(self) -> float:
        """Multiplications of a factorisation."""
        n, k = self.diagonals.shape[1], sum(root.shape[1] for root in self.roots)
        return float(min(n * n * k + n**3, n * k * k + k**3))

    def product(self, number: int, x: Tensor, weight: float = 1.0) -> Tensor:
        """x @ G for x (r, n) and the Gram of that number, its eigenpairs counted `weight` times."""
        root = self.roots[number]
        return (weight * (x @ root)) @ root.T + x * self.diagonals[number]

    def solve_each(self, goals: Sequence[Tensor], delta: float, weights: Sequence[float]) -> list[Tensor]:
        """Each Gram's goals (r, n) @ (S_i + delta I)^-1, where S_i is S with that Gram's eigenpairs counted as often as
        its weight says, at least once. ValueError unless S + delta I is positive definite.

        One factorisation serves all, by Woodbury's identity: (M + t U U^T)^-1 = M^-1 - M^-1 U (I / t + U^T M^-1 U)^-1
        U^T M^-1.
        """
        together = torch.cat([*goals])
        solver = self.solver(delta, len(together))
        solved = solver.solve(together)
        if max(weights) > 1.0:
            parts = solved.split([len(goal) for goal in goals])
            seen = [part @ root for part, root in zip(parts, self.roots, strict=True)]
            more = [
                _within(one, solver.inner(number), weight - 1.0)
                for number, (one, weight) in enumerate(zip(seen, weights, strict=True))
            ]
            solved = solved - solver.back(more)
        return list(solved.split([len(goal) for goal in goals]))

    def solver(self, delta: float, rows: int) -> Solver:
        """With S + delta I, for so many rows of goals in all."""
        n, k = self.diagonals.shape[1], sum(root.shape[1] for root in self.roots)
        return cheapest(n, k, rows)(self.roots, self.diagonals.sum(0) + delta)


class Solver(Protocol):
    """Of M = U U^T + D, where U (n, K) is made of blocks U_i."""

    def solve(self, goals: Tensor) -> Tensor:
        """goals (r, n) @ M^-1."""

    def inner(self, number: int) -> Tensor:
        """U_i^T M^-1 U_i."""

    def back(self, parts: Sequence[Tensor]) -> Tensor:
        """parts_i (r_i, k_i) @ U_i^T M^-1, below each other, (r, n)."""


class ByMatrix:
    """By the inverse of M itself, n x n."""

    def __init__(self, roots: Sequence[Tensor], diagonal: Tensor):
        self.roots = roots
        whole = torch.cat([*roots], 1)
        summed = whole @ whole.T
        summed.diagonal().add_(diagonal)
        self.inverse = torch.cholesky_inverse(_cholesky(summed))

    def solve(self, goals: Tensor) -> Tensor:
        return goals @ self.inverse

    def inner(self, number: int) -> Tensor:
        return self.roots[number].T @ self.inverse @ self.roots[number]

    def back(self, parts: Sequence[Tensor]) -> Tensor:
        return torch.cat([part @ root.T for part, root in zip(parts, self.roots, strict=True)]) @ self.inverse


class ByWoodbury:
    """By the inverse of C = I + U^T E U, K x K, with E = D^-1: M^-1 = E - E U C^-1 U^T E and U^T M^-1 = C^-1 U^T E."""

    def __init__(self, roots: Sequence[Tensor], diagonal: Tensor):
        # Halves of E on either side keep that matrix symmetric to the last bit, and at least the identity.
        self.half = diagonal.rsqrt()
        self.scaled = torch.cat([*roots], 1) * self.half[:, None]
        inner = self.scaled.T @ self.scaled
        inner.diagonal().add_(1)
        self.inverse = torch.cholesky_inverse(_cholesky(inner))
        ends = accumulate(root.shape[1] for root in roots)
        self.blocks = [slice(end - root.shape[1], end) for root, end in zip(roots, ends, strict=True)]

    def solve(self, goals: Tensor) -> Tensor:
        y = goals * self.half
        return (y - (y @ self.scaled) @ self.inverse @ self.scaled.T) * self.half

    def inner(self, number: int) -> Tensor:
        block = self.blocks[number]
        inner = -self.inverse[block, block]
        inner.diagonal().add_(1)
        return inner

    def back(self, parts: Sequence[Tensor]) -> Tensor:
        rows = torch.cat([part @ self.inverse[block] for part, block in zip(parts, self.blocks, strict=True)])
        return (rows @ self.scaled.T) * self.half


def cheapest(n: int, k: int, rows: int) -> type[ByMatrix] | type[ByWoodbury]:
    """The solver that takes fewer multiplications for n features, k eigenpairs in all and `rows` rows of goals.

    Both are needed. Seconds by matrix / by Woodbury for 2, 15 and 60 concepts of 48 eigenpairs and 12 rows (one core):
    n = 320: .004 / .001, .016 / .046, .060 / 1.6; n = 768: .032 / .001, .080 / .058, .27 / 1.8;
    n = 1280: .12 / .002, .26 / .083, .79 / 2.1; n = 3072: 1.5 / .007, 2.2 / .16, 4.9 / 3.3;
    n = 5120: 6.3 / .011, 8.5 / .29, 15 / 4.7.
    """
    matrix = n * n * k + n**3 / 2 + n * n * rows
    woodbury = n * k * k + k**3 / 2 + 2 * n * k * rows
    return ByWoodbury if woodbury < matrix else ByMatrix


def _within(seen: Tensor, inner: Tensor, times: float) -> Tensor:
    """seen (r, k) @ (I / times + inner)^-1, which is 0 for times 0."""
    if times == 0.0:
        return torch.zeros_like(seen)
    more = (inner + inner.T) / 2
    more.diagonal().add_(1.0 / times)
    return torch.cholesky_solve(seen.T, _cholesky(more)).T


def _cholesky(matrix: Tensor) -> Tensor:
    factor: Tensor
    factor, failed = torch.linalg.cholesky_ex(matrix)
    if int(failed):
        raise ValueError("Fused merge: expected a positive definite sum of Grams, got another. Is a file damaged?")
    return factor
