"""The patch that holds all merged concepts of one weight, against the plain sum of dense changes."""

from __future__ import annotations

import itertools

import pytest
import torch
from blocklora.blocklora_core.concept.layer import Layer
from blocklora.blocklora_core.concept.rows import Rows, Scheme, all_rows, count
from blocklora.blocklora_core.host.weights.row_blocks import RowBlocksAdapter
from hypothesis import given
from hypothesis import strategies as st


def make_layer(rows: Rows, shape: tuple[int, ...], rank: int, scale: float, seed: int) -> Layer:
    generator = torch.Generator().manual_seed(seed)
    kernel = [1] * (len(shape) - 2)
    up = torch.randn(count(rows), rank, *kernel, generator=generator)
    return Layer(up, torch.randn(rank, *shape[1:], generator=generator), rows, shape[0], scale)


@st.composite
def layers_of_one_weight(draw: st.DrawFn) -> list[Layer]:
    halves = draw(st.sampled_from([1, 2]))
    shape = (draw(st.integers(1, 24)) * halves, draw(st.integers(1, 6)), *draw(st.sampled_from([(), (3, 3), (1,)])))
    slots = draw(st.integers(1, 20))
    scheme = Scheme(slots=slots)
    chosen = draw(st.lists(st.integers(0, slots - 1), unique=True, min_size=1, max_size=slots))
    held = [scheme.rows(slot, shape[0], halves) for slot in chosen]
    held += [all_rows(shape[0])] * draw(st.integers(0, 2))
    scales = st.sampled_from([1.0, 0.5, -2.0])
    return [
        make_layer(rows, shape, draw(st.integers(1, 3)), draw(scales), seed) for seed, rows in enumerate(held) if rows
    ]


@given(layers_of_one_weight(), st.sampled_from([1.0, 0.25]))
def test_a_patch_adds_the_sum_of_the_dense_changes(layers: list[Layer], strength: float) -> None:
    if not layers:
        return
    weight = torch.randn(layers[0].weight_shape, generator=torch.Generator().manual_seed(99))
    expected = weight.double() + strength * sum(layer.dense().double() for layer in layers)
    patched = RowBlocksAdapter.of(layers).calculate_weight(weight.clone(), "w", strength, 1.0, None, None)
    torch.testing.assert_close(patched.double(), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("shape", [(8, 5), (5, 8), (8, 2, 3, 3)])
def test_a_dense_change_is_added_exactly_and_not_copied(shape: tuple[int, ...]) -> None:
    delta = torch.randn(shape, generator=torch.Generator().manual_seed(1))
    adapter = RowBlocksAdapter.of([Layer.of_dense(delta)])
    patched = adapter.calculate_weight(torch.zeros(shape), "w", 1.0, 1.0, None, None)
    assert torch.equal(patched, delta)
    ((ups, downs, *_),) = adapter.weights
    assert delta.data_ptr() in (ups.data_ptr(), downs.data_ptr())


def test_a_weight_in_another_memory_order_is_patched() -> None:
    layers = [make_layer(Scheme(slots=4).rows(slot, 8), (8, 5, 3, 3), 2, 1.0, slot) for slot in range(3)]
    weight = torch.randn(8, 5, 3, 3).to(memory_format=torch.channels_last)
    expected = weight + sum(layer.dense() for layer in layers)
    patched = RowBlocksAdapter.of(layers).calculate_weight(weight.clone(), "w", 1.0, 1.0, None, None)
    torch.testing.assert_close(patched, expected)


def test_a_load_copies_no_concept_for_good_and_a_gpu_that_asks_again_gets_them_stacked() -> None:
    layers = [make_layer(Scheme(slots=4).rows(slot, 8), (8, 5), 2, 0.5, slot) for slot in range(3)]
    weight, adapter = torch.randn(8, 5), RowBlocksAdapter.of(layers)
    once = adapter.calculate_weight(weight.clone(), "w", 1.0, 1.0, None, None)
    assert "weights" not in vars(adapter)
    again = [adapter.calculate_weight(weight.clone(), "w", 1.0, 1.0, None, None) for _ in range(2)]
    assert all(torch.equal(once, one) for one in again)
    assert [len(ups) for ups, *_ in vars(adapter)["weights"]] == [3]


def test_the_host_can_rebuild_an_adapter_from_its_attributes() -> None:
    layers = [make_layer(Scheme(slots=4).rows(slot, 8), (8, 5), 2, 0.5, slot) for slot in range(3)]
    first = RowBlocksAdapter.of(layers)
    moved = tuple(
        tuple(part.clone() if isinstance(part, torch.Tensor) else part for part in run) for run in first.weights
    )
    again = type(first)(first.loaded_keys, moved)
    weight = torch.randn(8, 5)
    assert torch.equal(
        again.calculate_weight(weight.clone(), "w", 1.0, 1.0, None, None),
        first.calculate_weight(weight.clone(), "w", 1.0, 1.0, None, None),
    )
    assert first.calculate_shape("w") is None


def test_blocks_dealt_out_evenly_are_one_product() -> None:
    scheme = Scheme(slots=16)
    layers = [make_layer(scheme.rows(slot, 64), (64, 8), 4, 1.0, slot) for slot in range(15)]
    ((ups, downs, *_),) = RowBlocksAdapter.of(layers).weights
    assert (ups.shape, downs.shape) == ((15, 4, 4), (15, 4, 8))


def test_the_order_of_the_concepts_does_not_change_a_bit() -> None:
    layers = [make_layer(Scheme(slots=3).rows(slot, 9), (9, 4), 2, 1.0, slot) for slot in range(3)]
    weight = torch.randn(9, 4)
    results = [
        RowBlocksAdapter.of(order).calculate_weight(weight.clone(), "w", 1.0, 1.0, None, None)
        for order in itertools.permutations(layers)
    ]
    assert all(torch.equal(results[0], other) for other in results)
