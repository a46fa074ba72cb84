"""The two solvers of the fused merge, against the plain inverse."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from blocklora_core.concept.gram import Gram
from blocklora_core.merge.solve import CPU, ByMatrix, ByWoodbury, PackedSum, cheapest, precision
from tests.core.samples import generator


def gram(n: int, k: int, seed: int, scale: float = 1.0) -> Gram:
    x = torch.randn(n, 3 * n, generator=generator(seed), dtype=torch.float64) * torch.linspace(3, 0.1, n)[:, None]
    return Gram.compress(scale * (x @ x.T) / (3 * n), k)


@given(st.integers(2, 30), st.integers(0, 12), st.integers(1, 4), st.sampled_from([1e-6, 1.0, 1e6]))
@settings(max_examples=60, deadline=None)
def test_both_solvers_are_the_inverse(n: int, k: int, grams: int, scale: float) -> None:
    summed = PackedSum.of([gram(n, k, seed, scale) for seed in range(grams)])
    delta = 0.1 * summed.mean_energy
    goals = torch.randn(5, n, generator=generator(9), dtype=torch.float64)
    dense = sum(gram(n, k, seed, scale).dense() for seed in range(grams)) + delta * torch.eye(n, dtype=torch.float64)
    expected = goals @ torch.linalg.inv(dense)
    diagonal = summed.diagonals.sum(0) + delta
    inverse = torch.linalg.inv(dense)
    parts = list(goals.split([1] * (grams - 1) + [6 - grams]))
    for kind in (ByMatrix, ByWoodbury):
        solver = kind(summed.roots, diagonal, parts)
        torch.testing.assert_close(solver.solution(), expected, rtol=1e-6, atol=1e-8 / scale)
        added = []
        for number, (root, part) in enumerate(zip(summed.roots, parts, strict=True)):
            torch.testing.assert_close(solver.seen(number), part @ inverse @ root, rtol=1e-6, atol=1e-8 / scale**0.5)
            torch.testing.assert_close(solver.inner(number), root.T @ inverse @ root, rtol=1e-6, atol=1e-8)
            more = torch.randn(len(part), root.shape[1], generator=generator(number)).double()
            solver.add(number, more)
            added.append(more @ root.T @ inverse)
        torch.testing.assert_close(
            solver.solution(), expected + torch.cat(added), rtol=1e-6, atol=1e-8 / min(scale, scale**0.5)
        )
    each = summed.solve_each(parts, delta, [1.0] * grams)
    torch.testing.assert_close(torch.cat(each), expected, rtol=1e-6, atol=1e-8 / scale)


@given(st.integers(2, 30), st.integers(0, 12), st.lists(st.sampled_from([1.0, 1.5, 3.0, 50.0]), min_size=1, max_size=4))
@settings(max_examples=60, deadline=None)
def test_each_gram_may_count_more_for_its_own_goals(n: int, k: int, weights: list[float]) -> None:
    found = [gram(n, k, seed) for seed in range(len(weights))]
    summed = PackedSum.of(found)
    delta = 0.1 * summed.mean_energy
    goals = [torch.randn(2 + at, n, generator=generator(at), dtype=torch.float64) for at in range(len(weights))]
    whole = sum(one.dense() for one in found) + delta * torch.eye(n, dtype=torch.float64)
    solutions = summed.solve_each(goals, delta, weights)
    for one, root, target, weight, solved in zip(found, summed.roots, goals, weights, solutions, strict=True):
        own = whole + (weight - 1) * root @ root.T
        torch.testing.assert_close(solved, target @ torch.linalg.inv(own), rtol=1e-6, atol=1e-8)
        more = one.dense() + (weight - 1) * root @ root.T
        torch.testing.assert_close(summed.product(found.index(one), target, weight), target @ more)


def test_the_sum_knows_its_grams() -> None:
    grams = [gram(12, 4, 0), gram(12, 12, 1), gram(12, 0, 2)]
    summed = PackedSum.of(grams)
    x = torch.randn(3, 12, generator=generator(3), dtype=torch.float64)
    for number, one in enumerate(grams):
        torch.testing.assert_close(summed.product(number, x), x @ one.dense())
        torch.testing.assert_close(summed.product(number, x), one.applied_to(x))
    assert summed.mean_energy == pytest.approx(sum(one.trace for one in grams) / 12)


def test_fewer_eigenpairs_than_features_go_by_woodbury() -> None:
    assert cheapest(5120, 720, 60) is ByWoodbury
    assert cheapest(320, 720, 180) is ByMatrix


def test_apples_gpus_have_no_float64() -> None:
    assert precision(CPU) == torch.float64
    assert precision(torch.device("mps")) == torch.float32


def test_what_cannot_be_solved_is_refused() -> None:
    roots, diagonal = torch.zeros(4, 2, dtype=torch.float64), -torch.ones(4, dtype=torch.float64)
    with pytest.raises(ValueError, match="positive definite"):
        ByMatrix([roots], diagonal, [torch.ones(1, 4).double()])
