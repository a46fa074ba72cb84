"""Every merge method against its definition, written out densely here, and the rules that all of them keep."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import permutations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from blocklora_core.concept.concept import BlockLoRA, Stack
from blocklora_core.concept.layer import Layer
from blocklora_core.concept.rows import Scheme
from blocklora_core.merge import METHODS, Options, merge
from blocklora_core.merge.diagnostics import cosine, inner_product, layer_cosines, layer_sign_conflicts
from blocklora_core.merge.methods.fused import DAMPING, fused
from blocklora_core.merge.methods.gradient_fusion import gradient_fusion
from blocklora_core.merge.methods.ties import trimmed
from tests.core.samples import CONV, KEY, QUERY, SHAPES, Recipe, inputs, make_layer, with_grams

Matrices = dict[str, Tensor]
JOINT = ("ties", "knots")
SHARED_ROWS = sorted(name for name, method in METHODS.items() if not method.needs_own_rows)


def total(stack: Stack) -> Matrices:
    """The merge: plain sum of the members' changes of each weight."""
    found: Matrices = {}
    for lora in stack:
        for name, layer in lora.layers.items():
            found[name] = found.get(name, 0.0) + layer.dense().double()
    return found


def assert_equal(a: Matrices, b: Matrices, tolerance: float = 0.0) -> None:
    assert a.keys() == b.keys()
    for name, value in a.items():
        torch.testing.assert_close(value, b[name], rtol=tolerance, atol=tolerance, msg=lambda m, n=name: f"{n}: {m}")


@st.composite
def stacks(draw: st.DrawFn, plain: bool | None = None) -> Stack:
    """Two to four concepts with Grams: ranks, layer sets and strengths of their own; all plain or all row blocks."""
    plain = draw(st.booleans()) if plain is None else plain
    scheme = None if plain else Scheme(slots=draw(st.sampled_from([4, 16])))
    seed = draw(st.integers(0, 10**6))
    found = []
    for slot in range(draw(st.integers(2, 4))):
        names = draw(st.sets(st.sampled_from(sorted(SHAPES)), min_size=1))
        recipe = Recipe(scheme, {name: SHAPES[name] for name in names}, rank=draw(st.integers(1, 3)))
        lora = recipe.make(f"<c{slot}>", slot, seed=seed + slot, strength=draw(st.sampled_from([1.0, 0.5, 2.0])))
        found.append(with_grams(lora, inputs(lora, seed + slot, columns=50), k=4))
    return tuple(found)


def plain(n: int, shapes: dict[str, tuple[int, ...]] | None = None, rank: int = 2) -> Stack:
    recipe = Recipe(None, shapes or SHAPES, rank)
    return tuple(recipe.make(f"<c{i}>", seed=i, strength=0.5 + 0.25 * i) for i in range(n))


def deltas(stack: Stack, name: str) -> list[Tensor]:
    """Each concept's whole change of one weight at its strength, in float64 throughout."""
    found = []
    for lora in stack:
        if name in lora.layers:
            layer = lora.layers[name]
            found.append(lora.strength * replace(layer, up=layer.up.double(), down=layer.down.double()).dense())
    return found


@pytest.mark.parametrize("method", sorted(METHODS))
@given(data=st.data())
@settings(max_examples=8, deadline=None)
def test_the_order_of_the_stack_does_not_matter(method: str, data: st.DataObject) -> None:
    stack = data.draw(stacks(plain=False if METHODS[method].needs_own_rows else None))
    first = total(merge(stack, method).members)
    for other in list(permutations(stack))[1::3]:
        assert_equal(total(merge(other, method).members), first, 1e-12)


@pytest.mark.parametrize("method", sorted(METHODS))
@given(data=st.data())
@settings(max_examples=8, deadline=None)
def test_removing_a_concept_restores_the_merge_without_it(method: str, data: st.DataObject) -> None:
    stack = data.draw(stacks(plain=False if METHODS[method].needs_own_rows else None))
    leaving = data.draw(st.integers(0, len(stack) - 1))
    without = total(merge(stack[:leaving] + stack[leaving + 1 :], method).members)
    silenced = [lora.with_strength(0.0) if i == leaving else lora for i, lora in enumerate(stack)]
    merge(stack, method)  # leaves nothing behind in what it was given
    assert_equal(total(merge(silenced, method).members), without)
    assert_equal(total(merge(stack[:leaving] + stack[leaving + 1 :], method).members), without)


@pytest.mark.parametrize("method", ["affine", "weighted_average"])
@given(data=st.data())
@settings(max_examples=15, deadline=None)
def test_weights_of_an_average_sum_to_one(method: str, data: st.DataObject) -> None:
    strengths = data.draw(st.lists(st.floats(0.01, 3), min_size=1, max_size=8))
    recipe = Recipe(Scheme() if METHODS[method].needs_own_rows else None)
    stack = [recipe.make(f"<c{i}>", i, seed=i, strength=s) for i, s in enumerate(strengths)]
    members = merge(stack, method).members
    for name in SHAPES:
        assert sum(lora.layers[name].scale for lora in members) == pytest.approx(1.0)


@given(stacks(plain=False))
@settings(max_examples=20, deadline=None)
def test_concepts_with_rows_of_their_own_never_meet(stack: Stack) -> None:
    assert set(layer_cosines(stack).values()) <= {0.0}
    assert set(layer_sign_conflicts(stack).values()) <= {0.0}


@given(stacks(plain=True))
@settings(max_examples=20, deadline=None)
def test_cosines_and_conflicts_are_those_of_the_dense_changes(stack: Stack) -> None:
    cosines, conflicts = layer_cosines(stack), layer_sign_conflicts(stack)
    for name in SHAPES:
        held = deltas(stack, name)
        assert (name in cosines) == (name in conflicts) == (len(held) > 1)
        if len(held) > 1:
            unit = torch.stack([delta.flatten() / delta.norm() for delta in held])
            pairs = (unit @ unit.T)[tuple(torch.triu_indices(len(held), len(held), 1))]
            assert cosines[name] == pytest.approx(float(pairs.mean()), abs=1e-6)
            signs = torch.stack(held).sign()
            both = (signs > 0).any(0) & (signs < 0).any(0)
            assert conflicts[name] == pytest.approx(float(both.double().mean()), abs=1e-3)


def test_the_inner_product_counts_only_shared_rows() -> None:
    wide, narrow = (
        make_layer(QUERY, (40, 12), Scheme(slots=2), 0),
        make_layer(QUERY, (40, 12), Scheme(slots=5), 2, seed=1),
    )
    expected = float((wide.dense().double() * narrow.dense().double()).sum())
    assert inner_product(wide, narrow) == pytest.approx(expected, rel=1e-5)
    assert cosine(wide, wide) == pytest.approx(1.0)
    assert cosine(wide, wide.scaled(-2.0)) == pytest.approx(-1.0)
    assert cosine(wide, wide.scaled(0.0)) == 0.0


def reference_ties(changes: Sequence[Tensor], density: float) -> Tensor:
    """TIES as its paper tells it, on changes of one shape."""
    kept = []
    for change in changes:
        best = change.abs().flatten().topk(max(1, int(density * change.numel()))).indices
        mask = torch.zeros(change.numel(), dtype=torch.bool)
        mask[best] = True
        kept.append(change * mask.reshape(change.shape))
    stacked = torch.stack(kept)
    elected = torch.where(stacked.sum(0) >= 0, 1.0, -1.0)
    agreeing = stacked * (stacked.sign() == elected)
    return agreeing.sum(0) / agreeing.ne(0).sum(0).clamp(min=1)


def reference_knots(changes: Sequence[Tensor], density: float) -> Tensor:
    """KnOTS as its paper tells it: the SVD of the dense changes side by side, TIES on S V_i^T."""
    u, s, vt = torch.linalg.svd(torch.cat([change.flatten(1) for change in changes], 1), full_matrices=False)
    rounding = torch.finfo(torch.float32).eps * s[0]
    rank = int((s > rounding).sum())
    right = s[:rank, None] * vt[:rank]
    right[right.abs() <= rounding] = 0.0  # a rounded zero has no vote
    parts = right.chunk(len(changes), 1)
    return (u[:, :rank] @ reference_ties(parts, density)).reshape(changes[0].shape)


@given(
    size=st.sampled_from([1, 7, 5000, 70000, 300000]),
    share=st.floats(0.0, 1.0),
    kind=st.sampled_from(["normal", "few values", "mostly zero", "one column"]),
    seed=st.integers(0, 99),
)
@settings(max_examples=60, deadline=None)
def test_trimming_keeps_exactly_the_largest(size: int, share: float, kind: str, seed: int) -> None:
    change = torch.randn(1, size, generator=torch.Generator().manual_seed(seed))
    change = {
        "normal": change,
        "few values": change.round(),
        "mostly zero": change * (change > 1.5),
        "one column": change * (torch.arange(size) % 37 == 0),
    }[kind]
    kept = max(1, int(share * size))
    limit = change.abs().flatten().sort(descending=True).values[kept - 1]
    assert torch.equal(trimmed(change.clone(), kept), change * (change.abs() >= limit))


REFERENCES = {"ties": reference_ties, "knots": reference_knots}


@pytest.mark.parametrize("method", JOINT)
@given(stack=stacks(), density=st.sampled_from([0.05, 0.2, 0.6, 1.0]), scale=st.sampled_from([1.0, 0.5, -2.0]))
@settings(max_examples=25, deadline=None)
def test_ties_and_knots_are_their_dense_definitions(method: str, stack: Stack, density: float, scale: float) -> None:
    got = total(merge(stack, method, options=Options(density=density, scale=scale)).members)
    for name, value in got.items():
        expected = scale * REFERENCES[method](deltas(stack, name), density)
        torch.testing.assert_close(value, expected, rtol=1e-4, atol=1e-5)


def test_knots_without_trimming_is_the_plain_sum_on_row_blocks() -> None:
    stack = tuple(Recipe().make(f"<c{i}>", i, seed=i) for i in range(4))
    assert_equal(total(merge(stack, "knots", options=Options(density=1.0)).members), total(stack), 1e-4)


@pytest.mark.parametrize("method", JOINT)
def test_the_joint_result_is_one_more_member_and_low_rank_where_it_can_be(method: str) -> None:
    stack = plain(3)
    merged = merge(stack, method)
    *concepts, joint = merged.members
    assert merged.concepts == 3
    assert [lora.concept.name for lora in concepts] == ["<c0>", "<c1>", "<c2>"]
    assert all(lora.embeddings and not lora.layers for lora in concepts)
    assert (joint.concept.name, joint.scheme, joint.slot, joint.base) == (method, None, None, "sd15")
    for name, layer in joint.layers.items():
        assert layer.weight_shape == SHAPES[name]
        assert layer.rank <= (6 if method == "knots" else min(layer.weight_shape[0], layer.down[0].numel()))


def test_ties_on_small_row_blocks_is_the_plain_sum() -> None:
    stack = tuple(Recipe().make(f"<c{i}>", i, seed=i, strength=1.0 + i) for i in range(5))
    assert_equal(total(merge(stack, "ties").members), total(merge(stack, "per_row").members), 1e-6)


@given(shape=st.sampled_from([(3, 7), (7, 3), (5, 5), (4, 2, 3, 3), (40, 2, 3, 3)]), seed=st.integers(0, 99))
@settings(max_examples=15, deadline=None)
def test_a_dense_change_is_a_layer_exactly(shape: tuple[int, ...], seed: int) -> None:
    delta = torch.randn(shape, generator=torch.Generator().manual_seed(seed))
    assert torch.equal(Layer.of_dense(delta).dense(), delta)
    assert Layer.of_dense(delta).weight_shape == shape


def test_sums_weigh_as_their_papers_say() -> None:
    stack = plain(3)
    strengths = torch.tensor([lora.strength for lora in stack], dtype=torch.float64)
    options = Options(scale=0.3, orthogonal_weight=0.6)
    weights = {
        "task_sum": 0.3 * strengths,
        "orthogonal": 0.6 * strengths,
        "weighted_average": strengths / strengths.sum(),
    }
    for method, factors in weights.items():
        got = total(merge(stack, method, options=options).members)
        for name in SHAPES:
            dense = [f * lora.layers[name].dense().double() for f, lora in zip(factors, stack, strict=True)]
            torch.testing.assert_close(got[name], torch.stack(dense).sum(0), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("method", SHARED_ROWS)
def test_methods_for_plain_loras_do_not_stop_on_shared_rows(method: str) -> None:
    stack = [with_grams(lora, inputs(lora, 1)) for lora in plain(2)]
    merged = merge(stack, method)
    assert merged.shared_rows == sum(shape[0] for shape in SHAPES.values())
    assert any(f"{method} is made for that" in note for note in merged.notes)


@pytest.mark.parametrize("method", sorted(set(METHODS) - set(SHARED_ROWS)))
def test_methods_for_row_blocks_stop_on_shared_rows(method: str) -> None:
    with pytest.raises(ValueError, match="share rows"):
        merge([with_grams(lora, inputs(lora, 1)) for lora in plain(2)], method)


def fusion_case(stack: Stack) -> tuple[Stack, list[Matrices]]:
    found = [inputs(lora, seed, columns=200) for seed, lora in enumerate(stack)]
    return tuple(with_grams(lora, x) for lora, x in zip(stack, found, strict=True)), found


def fusion_loss(d: Tensor, changes: Sequence[Tensor], xs: Sequence[Tensor]) -> Tensor:
    """Mix-of-Show's objective on one weight: sum_i |(Delta W_i - D) X_i|^2."""
    return torch.stack([((change - d) @ x).square().sum() for change, x in zip(changes, xs, strict=True)]).sum()


@pytest.mark.parametrize("name", [QUERY, KEY])
def test_gradient_fusion_is_what_lbfgs_converges_to(name: str) -> None:
    stack, found = fusion_case(plain(3, {name: SHAPES[name]}))
    changes, xs = deltas(stack, name), [x[name] for x in found]
    d = torch.zeros_like(changes[0], requires_grad=True)
    solver = torch.optim.LBFGS(
        [d], max_iter=2000, tolerance_grad=1e-12, tolerance_change=1e-16, line_search_fn="strong_wolfe"
    )

    def closure() -> Tensor:
        solver.zero_grad()
        loss = fusion_loss(d, changes, xs)
        loss.backward()
        return loss

    solver.step(closure)
    got = total(gradient_fusion(stack, damping=1e-9))[name]
    assert float((got - d.detach()).norm() / d.detach().norm()) <= 1e-3


def test_gradient_fusion_has_no_better_neighbour_with_its_ridge() -> None:
    stack, found = fusion_case(plain(3, {QUERY: SHAPES[QUERY]}))
    changes, xs = deltas(stack, QUERY), [x[QUERY] for x in found]
    energy = sum(float((x @ x.T / x.shape[1]).trace()) for x in xs) / len(xs[0])
    # A ridge is so many more inputs in every direction, shared out among the concepts.
    floor = (DAMPING * energy / 3 * xs[0].shape[1]) ** 0.5 * torch.eye(len(xs[0]), dtype=torch.float64)
    x = torch.cat([part for each in xs for part in (each, floor)], 1)
    y = torch.cat([change @ part for change, each in zip(changes, xs, strict=True) for part in (each, floor)], 1)
    expected = torch.linalg.lstsq(x.T, y.T).solution.T
    got = total(merge(stack, "gradient_fusion").members)[QUERY]
    assert float((got - expected).norm() / expected.norm()) <= 1e-3


def test_gradient_fusion_and_fused_meet_on_row_blocks_and_differ_on_unseen_inputs() -> None:
    # Convolutions carry no Grams, and both leave them as trained.
    matrices = {name: shape for name, shape in SHAPES.items() if name != CONV}
    stack = tuple(Recipe(shapes=matrices).make(f"<c{i}>", i, seed=i) for i in range(3))
    fusing, _ = fusion_case(stack)
    assert_equal(total(gradient_fusion(fusing, 1e-9)), total(fused(fusing, 1e-9, own_weight=1.0)), 1e-4)
    silent = tuple(with_grams(lora, {n: 0 * x for n, x in inputs(lora, 0).items()}) for lora in stack)
    kept, shared = total(fused(silent)), total(gradient_fusion(silent))
    assert_equal(kept, total(stack), 1e-6)
    assert_equal({name: 3 * value for name, value in shared.items()}, kept, 1e-5)


def test_a_file_that_is_zero_merges_to_zero() -> None:
    stack = plain(2)
    dead = [lora.with_layers({n: layer.with_up(0 * layer.up) for n, layer in lora.layers.items()}) for lora in stack]
    for method in JOINT:
        assert all(not value.any() for value in total(merge(dead, method).members).values())


def test_rows_of_a_convolution_keep_their_kernel() -> None:
    for method in JOINT:
        joint = merge(plain(2, {CONV: SHAPES[CONV]}), method).members[-1]
        assert joint.layers[CONV].down.shape[2:] == (3, 3)
        assert joint.layers[CONV].up.shape[2:] == (1, 1)


@pytest.mark.parametrize(
    "wrong",
    [
        {"density": 0.0}, {"density": 1.1}, {"scale": float("nan")}, {"orthogonal_weight": float("inf")},
        {"own_weight": 0.5}, {"own_weight": float("nan")}, {"damping": 0.0}, {"damping": float("inf")},
    ],
)  # fmt: skip
def test_impossible_options_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="expected a"):
        Options(**wrong)


def test_an_average_of_strengths_that_cancel_is_refused() -> None:
    a, b = plain(2)
    with pytest.raises(ValueError, match="do not sum to 0"):
        merge((a.with_strength(1.0), b.with_strength(-1.0)), "weighted_average")


def test_bases_stay_known() -> None:
    unknown: BlockLoRA = replace(plain(1)[0], base="")
    assert merge((unknown,), "ties").members[-1].base == ""
