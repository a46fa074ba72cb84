"""Solves with a sum of packed Grams: S = U U^T + D, where U (n, K) holds all eigenpairs and D is diagonal.

Where fewer eigenpairs are known than there are features, Woodbury's identity needs a K x K matrix only. Elsewhere S
itself, n x n, is the smaller one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate
from typing import Protocol

import torch
from torch import Tensor

from ..concept.gram import Gram

CPU = torch.device("cpu")

_WORTH_SPLITTING = 96
"""Columns of a half, from which on two halves are squared sooner than the whole."""


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
        solver = self.solver(delta, goals)
        for number, weight in enumerate(weights):
            if weight > 1.0:
                solver.add(number, -_within(solver.seen(number), solver.inner(number), weight - 1.0))
        return list(solver.solution().split([len(goal) for goal in goals]))

    def solver(self, delta: float, goals: Sequence[Tensor]) -> Solver:
        """With S + delta I."""
        n, k = self.diagonals.shape[1], sum(root.shape[1] for root in self.roots)
        return cheapest(n, k, sum(map(len, goals)))(self.roots, self.diagonals.sum(0) + delta, goals)


class Solver(Protocol):
    """Of M = U U^T + D, where U (n, K) is made of blocks U_i, and of goals_i (r_i, n): x_i = goals_i @ M^-1."""

    def seen(self, number: int) -> Tensor:
        """x_i U_i, (r_i, k_i)."""

    def inner(self, number: int) -> Tensor:
        """U_i^T M^-1 U_i."""

    def add(self, number: int, part: Tensor) -> None:
        """Adds part (r_i, k_i) @ U_i^T M^-1 to x_i."""

    def solution(self) -> Tensor:
        """All x_i below each other, (r, n)."""


class ByMatrix:
    """By M = L L^T itself, n x n; x_i is kept as x_i L until it is asked for."""

    def __init__(self, roots: Sequence[Tensor], diagonal: Tensor, goals: Sequence[Tensor]):
        self.roots = roots
        self.factor = _cholesky(_square(torch.cat([*roots], 1).T, diagonal))
        kept = torch.linalg.solve_triangular(self.factor, torch.cat([*goals]).T, upper=False)
        self.kept = list(kept.split([len(goal) for goal in goals], 1))

    @cached_property
    def blocks(self) -> Sequence[Tensor]:
        """L^-1 U_i."""
        whole = torch.linalg.solve_triangular(self.factor, torch.cat([*self.roots], 1), upper=False)
        return whole.split([root.shape[1] for root in self.roots], 1)

    def seen(self, number: int) -> Tensor:
        return self.kept[number].T @ self.blocks[number]

    def inner(self, number: int) -> Tensor:
        return self.blocks[number].T @ self.blocks[number]

    def add(self, number: int, part: Tensor) -> None:
        self.kept[number] = self.kept[number] + self.blocks[number] @ part.T

    def solution(self) -> Tensor:
        return torch.linalg.solve_triangular(self.factor.T, torch.cat(self.kept, 1), upper=True).T


class ByWoodbury:
    """By the inverse of C = I + U^T E U, K x K, with E = D^-1: M^-1 = E - E U C^-1 U^T E and U^T M^-1 = C^-1 U^T E.

    x_i is kept as x_i U, which is all that it lacks: x_i = (goals_i - x_i U U^T) E.
    """

    def __init__(self, roots: Sequence[Tensor], diagonal: Tensor, goals: Sequence[Tensor]):
        # Halves of E on either side keep that matrix symmetric to the last bit, and at least the identity.
        self.half = diagonal.rsqrt()
        self.scaled = torch.cat([*roots], 1) * self.half[:, None]
        self.inverse = torch.cholesky_inverse(_cholesky(_square(self.scaled, self.scaled.new_ones(()))))
        ends = accumulate(root.shape[1] for root in roots)
        self.blocks = [slice(end - root.shape[1], end) for root, end in zip(roots, ends, strict=True)]
        self.goals = torch.cat([*goals]) * self.half
        self.kept = list(((self.goals @ self.scaled) @ self.inverse).split([len(goal) for goal in goals]))

    def seen(self, number: int) -> Tensor:
        return self.kept[number][:, self.blocks[number]]

    def inner(self, number: int) -> Tensor:
        block = self.blocks[number]
        inner = -self.inverse[block, block]
        inner.diagonal().add_(1)
        return inner

    def add(self, number: int, part: Tensor) -> None:
        self.kept[number] = self.kept[number] - part @ self.inverse[self.blocks[number]]

    def solution(self) -> Tensor:
        return (self.goals - torch.cat(self.kept) @ self.scaled.T) * self.half


def cheapest(n: int, k: int, rows: int) -> type[ByMatrix] | type[ByWoodbury]:
    """The solver that takes fewer multiplications for n features, k eigenpairs in all and `rows` rows of goals.

    Both are needed. Seconds by matrix / by Woodbury for 2, 15 and 60 concepts of 48 eigenpairs and 12 rows (one core):
    n = 320: .003 / .001, .015 / .041, .054 / 1.5; n = 768: .014 / .001, .047 / .045, .19 / 1.7;
    n = 1280: .045 / .001, .14 / .068, .45 / 1.9; n = 3072: .75 / .006, 1.4 / .24, 3.8 / 4.2;
    n = 5120: 2.9 / .018, 4.7 / .35, 12 / 6.7.
    """
    matrix = 1.2 * n * n * k + n**3 / 6 + n * n * rows
    woodbury = 0.7 * n * k * k + k**3 / 2 + 2 * n * k * rows + k * k * rows
    return ByWoodbury if woodbury < matrix else ByMatrix


def _within(seen: Tensor, inner: Tensor, times: float) -> Tensor:
    """seen (r, k) @ (I / times + inner)^-1."""
    more = (inner + inner.T) / 2
    more.diagonal().add_(1.0 / times)
    return torch.cholesky_solve(seen.T, _cholesky(more)).T


def _square(x: Tensor, diagonal: Tensor) -> Tensor:
    """x^T x + diag(diagonal), for `_cholesky`: of a large one, what lies above the diagonal is not computed."""
    squared = x.new_empty(x.shape[1], x.shape[1])
    _fill(squared, x)
    squared.diagonal().add_(diagonal)
    return squared


def _fill(squared: Tensor, x: Tensor) -> None:
    half = x.shape[1] // 2
    if half < _WORTH_SPLITTING:
        torch.mm(x.T, x, out=squared)
        return
    left, right = x[:, :half], x[:, half:]
    _fill(squared[:half, :half], left)
    torch.mm(right.T, left, out=squared[half:, :half])
    _fill(squared[half:, half:], right)


def _cholesky(matrix: Tensor) -> Tensor:
    factor: Tensor
    factor, failed = torch.linalg.cholesky_ex(matrix)
    if int(failed):
        raise ValueError("Fused merge: expected a positive definite sum of Grams, got another. Is a file damaged?")
    return factor
