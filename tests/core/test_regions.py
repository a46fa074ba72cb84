"""Shapes of regions, their masks at every grid, and the rules for overlaps."""

from __future__ import annotations

from dataclasses import replace
from itertools import permutations
from typing import get_args

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from blocklora_core.regions import (
    OVERLAP_RULES,
    Box,
    Layout,
    OverlapRule,
    Region,
    bounds,
    cells_of,
    check_regions,
    mask_of,
)
from blocklora_core.regions import layout as lay
from blocklora_core.reports.palette import FREE, colour
from blocklora_core.reports.regions import regions_picture

shares = st.floats(0, 1, width=32)
sides = st.integers(1, 24)
sizes = st.tuples(sides, sides)


@st.composite
def boxes(draw: st.DrawFn) -> Box:
    return Box(
        draw(st.floats(-0.5, 0.99)), draw(st.floats(-0.5, 0.99)), draw(st.floats(0.51, 1)), draw(st.floats(0.51, 1))
    )


@st.composite
def small_boxes(draw: st.DrawFn) -> Box:
    corner, side = st.floats(0, 0.99), st.floats(1e-3, 1)
    return Box(draw(corner), draw(corner), draw(side), draw(side))


@st.composite
def masks(draw: st.DrawFn) -> torch.Tensor:
    seeded = torch.Generator().manual_seed(draw(st.integers(0, 999)))
    mask = torch.rand(draw(sides), draw(sides), generator=seeded)
    mask[0, 0] = 1
    return mask


@st.composite
def regions(draw: st.DrawFn) -> Region:
    shape = draw(st.one_of(boxes(), small_boxes(), masks()))
    return Region(
        shape, weight=draw(st.floats(0, 3)), feather=draw(shares), priority=draw(st.integers(-2, 2))
    )  # fmt: skip


@given(st.lists(regions(), max_size=5), sizes, st.sampled_from(OVERLAP_RULES))
def test_weights_sum_to_one_at_every_cell(found: list[Region], size: tuple[int, int], rule: OverlapRule) -> None:
    laid = lay(found, size, rule)
    assert laid.weights.shape == (len(found), size[0] * size[1])
    assert float(laid.weights.min() if found else 0) >= 0 and float(laid.base.min()) >= 0
    torch.testing.assert_close(laid.weights.sum(dim=0) + laid.base, torch.ones(size[0] * size[1]))


@given(st.lists(regions(), min_size=2, max_size=4), sizes)
def test_the_mean_does_not_know_the_order(found: list[Region], size: tuple[int, int]) -> None:
    expected = lay(found, size).weights
    for order in permutations(range(len(found))):
        torch.testing.assert_close(lay([found[n] for n in order], size).weights, expected[list(order)])


@given(st.one_of(boxes(), small_boxes(), masks()), sizes, shares)
def test_no_region_vanishes(shape: Box | torch.Tensor, size: tuple[int, int], feather: float) -> None:
    mask = mask_of(Region(shape, feather=feather), size)
    assert mask.shape == size
    assert 0.5 - 1e-5 <= float(mask.max()) <= 1 and float(mask.min()) >= 0
    hard = mask_of(Region(shape), size)
    assert set(hard.unique().tolist()) <= {0.0, 1.0}


@given(st.one_of(boxes(), small_boxes()), sizes)
def test_a_hard_box_is_its_cells(box: Box, size: tuple[int, int]) -> None:
    drawn = torch.zeros(size)
    drawn[cells_of(box, size)] = 1
    assert torch.equal(mask_of(Region(box), size), drawn)


@given(small_boxes(), st.integers(0, 3))
def test_a_box_and_the_same_box_as_a_mask_agree(box: Box, times: int) -> None:
    """On a grid that divides the mask, whose cells the box fills exactly."""
    size = 16 >> times, 16 >> times
    drawn = torch.zeros(16, 16)
    drawn[cells_of(box, (16, 16))] = 1
    same = bounds(Region(drawn))
    rows, columns = cells_of(same, size)
    cells = (rows.stop - rows.start) * (columns.stop - columns.start)
    mask = mask_of(Region(drawn), size)
    # Corners that a box holds by its rows and columns, a mask may leave out: a quarter of a cell is less than half.
    assert float(mask[rows, columns].sum()) >= cells / 4 and float(mask.sum()) == float(mask[rows, columns].sum())


@pytest.mark.parametrize("size", [(8, 8), (16, 16), (64, 64), (13, 7)])
def test_left_half_covers_the_left_half(size: tuple[int, int]) -> None:
    mask = mask_of(Region(Box(0, 0, 0.5, 1)), size)
    assert torch.equal(mask[:, : size[1] // 2], torch.ones(size[0], size[1] // 2))
    assert not mask[:, (size[1] + 1) // 2 :].any()


def test_a_tiny_box_keeps_the_cell_nearest_its_centre() -> None:
    mask = mask_of(Region(Box(0.26, 0.63, 0.02, 0.02)), (8, 8))
    assert mask.nonzero().tolist() == [[5, 2]]
    thin = mask_of(Region(Box(0, 0.49, 1, 0.02)), (8, 8))
    assert thin.sum() == 8 and thin.any(dim=1).sum() == 1


def test_a_tiny_mask_keeps_its_cell_too() -> None:
    drawn = torch.zeros(64, 64)
    drawn[33, 10] = 1
    assert mask_of(Region(drawn), (8, 8)).nonzero().tolist() == [[4, 1]]


def test_a_feather_is_a_ramp_over_the_edge() -> None:
    mask = mask_of(Region(Box(0, 0, 0.5, 1), feather=0.25), (16, 16))
    assert torch.equal(mask[0], mask[-1]) and torch.equal(mask[0, :6], torch.ones(6))
    torch.testing.assert_close(mask[0, 6:10], torch.tensor([0.875, 0.625, 0.375, 0.125]))
    assert not mask[:, 10:].any()


@given(masks(), shares)
def test_a_drawn_feather_is_the_mean_of_a_window(drawn: torch.Tensor, feather: float) -> None:
    drawn = drawn * (drawn > 0.6)
    reach = round(feather * min(drawn.shape) / 2)

    def around(at: int) -> slice:
        return slice(max(at - reach, 0), at + reach + 1)

    rows, columns = map(range, drawn.shape)
    expected = torch.tensor([[float(drawn[around(y), around(x)].double().mean()) for x in columns] for y in rows])
    mask = mask_of(Region(drawn, feather=feather), tuple(drawn.shape))
    if feather > 0 and float(expected.max()) >= 0.5:
        torch.testing.assert_close(mask, expected, rtol=0, atol=1e-6)
        assert torch.equal(mask == 0, expected == 0)


def test_neighbours_with_one_feather_fill_the_picture() -> None:
    pair = [Region(Box(0, 0, 0.5, 1), feather=0.2), Region(Box(0.5, 0, 0.5, 1), feather=0.2)]
    assert float(lay(pair, (32, 32)).base.max()) < 1e-6


def test_a_feathered_mask_is_soft_and_a_hard_one_is_not() -> None:
    drawn = torch.zeros(32, 32)
    drawn[:, :16] = 1
    soft = mask_of(Region(drawn, feather=0.25), (16, 16))
    assert torch.equal(soft[0], soft[0].sort(descending=True).values)
    assert 0 < float(soft[0, 8]) < 0.5 < float(soft[0, 7]) < 1
    torch.testing.assert_close(soft[0], 1 - soft[0].flip(0))


def halves(rule: OverlapRule, **second: float) -> Layout:
    """All of the picture, and its left half over it, on two cells."""
    return lay([Region(Box(0, 0, 1, 1)), replace(Region(Box(0, 0, 0.5, 1)), **second)], (1, 2), rule)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("rule", "second", "weights"),
    [
        ("mean", {}, [[0.5, 1], [0.5, 0]]),
        ("mean", {"weight": 3.0}, [[0.25, 1], [0.75, 0]]),
        ("mean", {"weight": 0.0}, [[1, 1], [0, 0]]),
        ("priority", {}, [[0, 1], [1, 0]]),
        ("priority", {"priority": -1}, [[1, 1], [0, 0]]),
        ("priority", {"weight": 0.5}, [[0.5, 1], [0.5, 0]]),
    ],
)
def test_overlap_rules(rule: OverlapRule, second: dict[str, float], weights: list[list[float]]) -> None:
    laid = halves(rule, **second)
    torch.testing.assert_close(laid.weights, torch.tensor(weights).float())
    assert not laid.base.any()


def test_a_weight_below_one_lets_the_prompt_of_the_picture_through() -> None:
    laid = lay([Region(Box(0, 0, 1, 1), weight=0.25)], (2, 2))
    assert laid.weights.unique().tolist() == [0.25] and laid.base.unique().tolist() == [0.75]


def test_bounds_of_a_mask() -> None:
    drawn = torch.zeros(10, 20)
    drawn[2:5, 4:14] = 1
    found = bounds(Region(drawn))
    assert (found.x, found.y) == (0.2, 0.2) and (found.width, found.height) == (0.5, 0.3)
    assert bounds(Region(found)) is found
    assert bounds(Region(drawn * 0.3)) == found


@settings(max_examples=50)
@given(masks())
def test_bounds_hold_every_cell_of_the_mask(mask: torch.Tensor) -> None:
    size = mask.shape[0], mask.shape[1]
    outside = mask_of(Region(mask), size)
    outside[cells_of(bounds(Region(mask)), size)] = 0
    assert not outside.any()


@pytest.mark.parametrize("box", [(1, 0, 1, 1), (0, 0, 0, 1), (0, -0.5, 1, 0.5), (0, 0, float("nan"), 1)])
def test_a_box_outside_the_picture_is_refused(box: tuple[float, float, float, float]) -> None:
    with pytest.raises(ValueError, match="nothing of that is in the picture"):
        Box(*box)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"weight": -1.0}, "Region <a>: expected a weight of 0 or more"),
        ({"weight": 1e39}, "Region <a>: expected a weight of at most 10, got 1e"),
        ({"feather": 1.5}, "expected a feather from 0 to 1"),
        ({"shape": torch.ones(1, 4, 4)}, "expected a mask of height x width"),
        ({"shape": torch.zeros(4, 4)}, "mask is empty"),
        ({"shape": torch.full((4, 4), 2.0)}, "expected a mask from 0 to 1, got one from 2 to 2"),
        ({"shape": torch.full((4, 4), float("nan"))}, "expected a mask from 0 to 1"),
    ],
)
def test_what_is_wrong_with_a_region_is_said(fields: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Region(**{"shape": Box(0, 0, 1, 1), "concept": "<a>", **fields})  # type: ignore[arg-type]


def test_an_unknown_rule_and_an_empty_grid_are_refused() -> None:
    with pytest.raises(ValueError, match="expected one of mean, priority, got 'sum'"):
        lay([Region(Box(0, 0, 1, 1))], (2, 2), "sum")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="at least 1 x 1, got 0 x 3"):
        lay([Region(Box(0, 0, 1, 1))], (0, 3))
    assert get_args(OverlapRule) == OVERLAP_RULES


def test_regions_of_no_weight_are_none() -> None:
    with pytest.raises(ValueError, match="got 0 regions"):
        check_regions([])
    with pytest.raises(ValueError, match="got 1 regions"):
        check_regions([Region(Box(0, 0, 1, 1), weight=0)])


def test_the_picture_shows_who_has_what() -> None:
    pair = [Region(Box(0, 0, 0.25, 1), concept="<a>"), Region(Box(0.5, 0, 0.5, 1))]
    picture = regions_picture(pair)
    assert picture.size == (512, 512)
    pixels = [picture.getpixel((x, 8)) for x in (8, 200, 500)]
    assert pixels == [colour(0), FREE, colour(1)]
    ink = np.array(picture).max(axis=-1) < 130
    assert ink[:, :128].any() and ink[:, 256:].any()


def test_the_picture_has_the_proportions_of_a_mask() -> None:
    mask = torch.zeros(30, 60)
    mask[:, :30] = 1
    picture = regions_picture([Region(mask, concept="<a very long name that is wider than its region>")])
    assert picture.size == (512, 256)
    assert (picture.getpixel((4, 4)), picture.getpixel((500, 4))) == (colour(0), FREE)
