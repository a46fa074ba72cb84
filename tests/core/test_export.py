"""A merge as one plain LoRA: the same change, at the rank that it takes, and cut down by SVD."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from blocklora_core.concept.adapters import Adapter
from blocklora_core.concept.concept import BlockLoRA, Concept, Stack
from blocklora_core.concept.layer import Layer
from blocklora_core.concept.rows import Scheme, all_rows
from blocklora_core.files.io import load, save
from blocklora_core.merge import METHODS, merge
from blocklora_core.merge.export import flat, in_dtype, relative_error, smallest_exact, truncated
from tests.core.samples import CONV, QUERY, SHAPES, Recipe, inputs, make_layer, with_grams

METHOD_NAMES = sorted(METHODS)


@st.composite
def stacks(draw: st.DrawFn) -> Stack:
    """One to four concepts with Grams, row blocks of one scheme or plain ones, with layers and scales of their own."""
    scheme = draw(st.sampled_from([None, Scheme(slots=4), Scheme(slots=16)]))
    seed, found = draw(st.integers(0, 10**6)), []
    for slot in range(draw(st.integers(1, 4))):
        names = draw(st.sets(st.sampled_from(sorted(SHAPES)), min_size=1))
        recipe = Recipe(
            scheme, {name: SHAPES[name] for name in names}, rank=draw(st.integers(1, 5)),
            scale=draw(st.sampled_from([1.0, 0.5, 0.3])),
        )  # fmt: skip
        lora = recipe.make(f"<c{slot}>", slot, seed=seed + slot, strength=draw(st.sampled_from([1.0, -0.7])))
        found.append(with_grams(lora, inputs(lora, seed + slot, columns=30), k=4))
    return tuple(found)


def dense(members: Stack) -> dict[str, torch.Tensor]:
    found: dict[str, torch.Tensor] = {}
    for lora in members:
        for name, layer in lora.layers.items():
            if layer.rows:
                found[name] = found.get(name, 0.0) + lora.strength * layer.dense().double()
    return found


@settings(deadline=None, max_examples=60)
@given(stacks(), st.sampled_from(METHOD_NAMES))
def test_one_plain_lora_is_the_merge(stack: Stack, method: str) -> None:
    try:
        members = merge(stack, method, "share").members
    except ValueError as error:  # an average of strengths that sum to 0
        assert "sum to 0" in str(error)
        return
    got, expected = flat(members), dense(members)
    assert got.keys() == expected.keys()
    for name, value in expected.items():
        layer = got[name]
        assert layer.rows == all_rows(layer.out_features) and layer.weight_shape == tuple(value.shape)
        limit = 1e-5 * max(1.0, float(value.abs().max()))
        torch.testing.assert_close(layer.dense().double(), value, rtol=0, atol=limit)
        largest = max(lora.layers[name].rank for lora in members if name in lora.layers)
        assert layer.rank <= max(min(value.flatten(1).shape), largest)


def block(rows: range, up: torch.Tensor, down: torch.Tensor, out: int = 32) -> BlockLoRA:
    return BlockLoRA(Concept(f"<c{rows.start}>"), {QUERY: Layer(up, down, (rows,), out)})


def matrix_rank(layer: Layer) -> int:
    return int(torch.linalg.matrix_rank(layer.up.double() @ layer.down.double()))


def test_ranks_of_row_blocks_add_up_when_each_has_a_down_of_its_own() -> None:
    """Against the guess that disjoint rows take no more rank than the largest block."""
    random = torch.Generator().manual_seed(0)
    stack = tuple(
        block(range(8 * slot, 8 * slot + 8), torch.randn(8, 3, generator=random), torch.randn(3, 20, generator=random))
        for slot in range(4)
    )
    layer = flat(stack)[QUERY]
    assert layer.rank == matrix_rank(layer) == 4 * 3
    one, axes = torch.ones(1, 1), torch.eye(2)
    smallest = (block(range(1), one, axes[:1], 2), block(range(1, 2), one, axes[1:], 2))
    assert matrix_rank(flat(smallest)[QUERY]) == 2


def test_blocks_that_share_their_down_take_the_rank_of_one() -> None:
    random = torch.Generator().manual_seed(0)
    down = torch.randn(3, 20, generator=random)
    stack = tuple(block(range(8 * slot, 8 * slot + 8), torch.randn(8, 3, generator=random), down) for slot in range(4))
    layer = flat(stack)[QUERY]
    assert layer.rank == matrix_rank(layer) == 3
    torch.testing.assert_close(layer.dense().double(), dense(stack)[QUERY], rtol=1e-6, atol=1e-6)


def test_more_rank_than_the_weight_has_is_never_written() -> None:
    recipe = Recipe(None, {QUERY: (40, 12), CONV: (6, 8, 3, 3)}, rank=5)
    stack = tuple(recipe.make(f"<c{i}>", seed=i) for i in range(4))
    assert {name: layer.rank for name, layer in flat(stack).items()} == {QUERY: 12, CONV: 6}


def test_row_blocks_up_has_no_more_entries_than_one_lora_s() -> None:
    stack = tuple(Recipe(shapes={QUERY: (320, 40)}).make(f"<c{slot}>", slot, seed=slot) for slot in range(16))
    layer = flat(stack)[QUERY]
    assert layer.rank == 32 and int(layer.up.count_nonzero()) == 320 * 2


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_files_stay_as_they_are(tmp_path: Path, dtype: torch.dtype) -> None:
    stack = tuple(Recipe(dtype=dtype, scale=0.3).make(f"<c{slot}>", slot, seed=slot) for slot in range(3))
    layers = flat(merge(stack, "per_row").members)
    factors = [factor for layer in layers.values() for factor in (layer.up, layer.down)]
    # Numbers near 1 in bfloat16 are numbers of float16 too.
    assert smallest_exact(factors) == torch.float16
    save(tmp_path / "a.safetensors", BlockLoRA(Concept("all"), layers), dtype=torch.float16)
    assert relative_error(load(tmp_path / "a.safetensors").layers, layers) < 1e-7


def test_the_smallest_exact_dtype() -> None:
    half, brain = torch.tensor([1.0009765625]), torch.tensor([1e30])
    assert smallest_exact([half]) == torch.float16
    assert smallest_exact([brain.bfloat16()]) == torch.bfloat16
    assert smallest_exact([torch.tensor([1.0 + 2**-20])]) == torch.float32
    assert smallest_exact([half.float(), brain.bfloat16().float()]) == torch.float32


@settings(deadline=None, max_examples=40)
@given(
    st.integers(0, 10**6), st.integers(1, 12), st.sampled_from([(40, 12), (10, 30), (16, 4, 3, 3)]),
    st.sampled_from([1.0, -0.5]),
)  # fmt: skip
def test_a_cut_is_the_best_of_its_rank(seed: int, rank: int, shape: tuple[int, ...], scale: float) -> None:
    layer = make_layer(QUERY, shape, rank=6, seed=seed, scale=scale)
    cut = truncated(layer, rank)
    whole = layer.dense().double().flatten(1)
    values = torch.linalg.svdvals(whole)
    best = math.sqrt(float(values[rank:].square().sum() / values.square().sum()))
    assert cut.rank == min(rank, 6) and cut.weight_shape == layer.weight_shape
    real = float((cut.dense().double().flatten(1) - whole).norm() / whole.norm())
    assert real == pytest.approx(best, abs=1e-5)
    assert relative_error({QUERY: cut}, {QUERY: layer}) == pytest.approx(real, abs=1e-5)


def test_the_error_counts_rounding() -> None:
    layer = make_layer(QUERY, (40, 12))
    rounded = in_dtype(layer, torch.bfloat16)
    real = float((rounded.dense() - layer.dense()).norm() / layer.dense().norm())
    assert 1e-4 < real < 1e-2
    assert relative_error({QUERY: rounded}, {QUERY: layer}) == pytest.approx(real, rel=1e-3)


def test_a_merge_that_changes_nothing_has_no_error() -> None:
    layer = Layer(torch.zeros(4, 1), torch.zeros(1, 4), all_rows(4), 4)
    assert relative_error({QUERY: layer}, {QUERY: layer}) == 0.0


def test_other_kinds_are_refused_not_left_out() -> None:
    mixed = Recipe().make("<a>").with_adapters({"x": Adapter("LoHa", {})})
    with pytest.raises(ValueError, match="got LoHa in <a>"):
        flat((mixed,))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("method", ["fused", "gradient_fusion"])
def test_what_a_closed_form_solves_of_half_precision_files_is_exact(dtype: torch.dtype, method: str) -> None:
    stack = []
    for slot in range(3):
        lora = Recipe(Scheme(slots=4)).make(f"<c{slot}>", slot, seed=slot)
        halves = lora.with_layers({name: in_dtype(layer, dtype) for name, layer in lora.layers.items()})
        stack.append(with_grams(halves, inputs(halves, slot, columns=30), k=4))
    members = merge(tuple(stack), method, "share").members
    got, expected = flat(members), dense(members)
    for name, value in expected.items():
        torch.testing.assert_close(got[name].dense().double(), value, rtol=1e-6, atol=1e-7)
