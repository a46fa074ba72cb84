"""Layers of pieces of a weight, as layers of the whole: the dense changes are the yardstick."""

from __future__ import annotations

from random import Random

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from blocklora_core.concept.layer import Layer, ShapeError, concat_layers, placed
from blocklora_core.concept.rows import Scheme, all_rows

INPUTS = 5


def piece(rows: int, rank: int, scale: float) -> Layer:
    random = torch.Generator().manual_seed(rows)
    up, down = torch.randn(rows, rank, generator=random), torch.randn(rank, INPUTS, generator=random)
    return Layer(up, down, all_rows(rows), rows, scale)


PIECES = st.tuples(st.integers(1, 6), st.integers(1, 3), st.floats(-2.0, 2.0, width=32))


@given(st.lists(PIECES, min_size=1, max_size=4), st.integers(0, 2), st.randoms(use_true_random=False))
def test_pieces_change_a_weight_as_they_would_alone(
    pieces: list[tuple[int, int, float]], gap: int, random: Random
) -> None:
    layers, starts, end = [piece(*each) for each in pieces], [], 0
    for layer in layers:
        starts.append(end)
        end += layer.out_features + gap
    whole = [placed(layer, range(at, at + layer.out_features), end) for layer, at in zip(layers, starts, strict=True)]
    random.shuffle(whole)
    change = concat_layers(whole).dense()
    assert change.shape == (end, INPUTS)
    expected = torch.zeros(end, INPUTS)
    for layer, at in zip(layers, starts, strict=True):
        expected[at : at + layer.out_features] = layer.dense()
    torch.testing.assert_close(change, expected)


def test_a_row_block_keeps_its_rows() -> None:
    rows = Scheme(slots=2).rows(1, 4)
    layer = placed(Layer(torch.ones(2, 1), torch.ones(1, INPUTS), rows, 4), range(8, 12), 12)
    assert layer.rows == (range(10, 12),)


def test_a_layer_for_another_piece_is_refused() -> None:
    with pytest.raises(ShapeError, match="expected 4 rows, the layer has 3"):
        placed(piece(3, 1, 1.0), range(4, 8), 12)


def test_two_layers_for_one_row_are_refused() -> None:
    with pytest.raises(ValueError, match="Expected disjoint"):
        concat_layers([placed(piece(3, 1, 1.0), range(at, at + 3), 12) for at in (0, 2)])
