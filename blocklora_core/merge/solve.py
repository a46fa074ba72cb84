"""Solves with a sum of packed Grams: S = U U^T + D, where U (n, K) holds all eigenpairs and D is diagonal.

Where fewer eigenpairs are known than there are features, Woodbury's identity needs a K x K matrix only:
S^-1 = E - E U (I + U^T E U)^-1 U^T E with E = D^-1. Elsewhere S itself, n x n, is the smaller one.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ..grams import Gram

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

    def product(self, number: int, x: Tensor, weight: float = 1.0) -> Tensor:
        """x @ G for x (r, n) and the Gram of that number, its eigenpairs counted `weight` times."""
        root = self.roots[number]
        return (weight * (x @ root)) @ root.T + x * self.diagonals[number]

    def solve(self, goals: Tensor, delta: float) -> Tensor:
        """goals (r, n) @ (S + delta I)^-1. ValueError unless that sum is positive definite."""
        roots, diagonal = torch.cat(self.roots, 1), self.diagonals.sum(0) + delta
        n, k = roots.shape
        return cheapest(n, k, len(goals))(roots, diagonal, goals)

    def solve_each(self, goals: Sequence[Tensor], delta: float, weight: float = 1.0) -> list[Tensor]:
        """Each Gram's goals (r, n) @ (S_i + delta I)^-1, where S_i is S with that Gram's eigenpairs counted `weight`
        times, at least 1. One factorisation serves all, by Woodbury's identity."""
        sizes = [len(goal) for goal in goals]
        if weight == 1.0:
            return list(self.solve(torch.cat([*goals]), delta).split(sizes))
        columns = [root.T for root in self.roots]
        solved = self.solve(torch.cat([*goals, *columns]), delta).split([*sizes, *map(len, columns)])
        pairs = zip(self.roots, solved[: len(goals)], solved[len(goals) :], strict=True)
        return [_counted_again(root, goal, column, weight - 1.0) for root, goal, column in pairs]


Solver = Callable[[Tensor, Tensor, Tensor], Tensor]
"""(roots (n, K), diagonal (n,), goals (r, n)) -> goals @ (roots @ roots.T + diag(diagonal))^-1."""


def by_matrix(roots: Tensor, diagonal: Tensor, goals: Tensor) -> Tensor:
    """By a Cholesky factor of the n x n matrix."""
    summed = roots @ roots.T
    summed.diagonal().add_(diagonal)
    return torch.cholesky_solve(goals.T, _cholesky(summed)).T


def by_woodbury(roots: Tensor, diagonal: Tensor, goals: Tensor) -> Tensor:
    """By a Cholesky factor of a K x K matrix."""
    # Halves of E on either side keep that matrix symmetric to the last bit, and at least the identity.
    half = diagonal.rsqrt()
    scaled, y = roots * half[:, None], goals * half
    inner = scaled.T @ scaled
    inner.diagonal().add_(1)
    seen = torch.cholesky_solve((y @ scaled).T, _cholesky(inner)).T
    return (y - seen @ scaled.T) * half


def cheapest(n: int, k: int, rows: int) -> Solver:
    """The solver that takes fewer multiplications for n features, k eigenpairs in all and `rows` goals."""
    matrix = n * n * k + n**3 / 6 + n * n * rows
    woodbury = n * k * k + k**3 / 6 + 2 * n * k * rows
    return by_woodbury if woodbury < matrix else by_matrix


def _counted_again(root: Tensor, solved: Tensor, columns: Tensor, times: float) -> Tensor:
    """From solved = goals @ M^-1 and columns = root^T @ M^-1: goals @ (M + times * root @ root^T)^-1."""
    inner = columns @ root
    inner = (inner + inner.T) / 2
    inner.diagonal().add_(1.0 / times)
    return solved - torch.cholesky_solve((solved @ root).T, _cholesky(inner)).T @ columns


def _cholesky(matrix: Tensor) -> Tensor:
    factor: Tensor
    factor, failed = torch.linalg.cholesky_ex(matrix)
    if int(failed):
        raise ValueError("Fused merge: expected a positive definite sum of Grams, got another. Is a file damaged?")
    return factor
