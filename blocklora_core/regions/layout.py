"""Where regions lie on a grid of tokens or latent pixels, and how much each counts there.

A cell belongs to a hard region when at least half of it is covered. So that a small region does not vanish at coarse
grids, the cell that it covers most is kept, the nearest to its centre among equals; of a box, the row and the column.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor
from torch.nn import functional as F

from .region import Box, Region

OverlapRule = Literal["mean", "priority"]

OVERLAP_RULES: tuple[OverlapRule, ...] = get_args(OverlapRule)

HALF = 0.5
_SLACK = 1e-6
"""Of a cell: edges in shares are not exact in floating point."""

_STEP = 2.0**-32

Size = tuple[int, int]
"""Rows and columns of a grid."""


@dataclass(frozen=True)
class Layout:
    """How much each region counts at each cell, and the whole picture's prompt: together 1 everywhere.

    size: (h, w). weights: (R, h*w), row by row. base: (h*w,), 0 where regions take all. float32, on the CPU.
    """

    size: Size
    weights: Tensor
    base: Tensor

    def only(self, kept: Sequence[bool]) -> Layout:
        """Only the regions that are `kept`: what another one counted for goes to the whole picture's prompt."""
        chosen = torch.tensor(kept, dtype=torch.bool)
        return Layout(self.size, self.weights * chosen[:, None], self.base + self.weights[~chosen].sum(dim=0))


def layout(regions: Sequence[Region], size: Size, rule: OverlapRule = "mean") -> Layout:
    """Layout of `regions` on a grid of `size`. ValueError for an unknown rule and an empty grid."""
    if rule not in OVERLAP_RULES:
        raise ValueError(f"Overlapping regions: expected one of {', '.join(OVERLAP_RULES)}, got {rule!r}.")
    presence = [mask_of(region, size).flatten() * region.weight for region in regions]
    weights, base = _RULES[rule](regions, torch.stack(presence)) if presence else _nobody(size)
    return Layout(size, weights, base)


def mask_of(region: Region, size: Size) -> Tensor:
    """(h, w) float32 in 0..1: 1 inside, 0 outside, between only where the region is feathered."""
    if min(size) < 1:
        raise ValueError(f"Regions: expected a grid of at least 1 x 1, got {size[0]} x {size[1]}.")
    if isinstance(region.shape, Box):
        return _box_mask(region.shape, size, region.feather)
    return _free_mask(region.shape, size, region.feather)


def cells_of(box: Box, size: Size) -> tuple[slice, slice]:
    """Rows and columns of the cells that a hard box holds on a grid of `size`; at least one of each."""
    rows, columns = (
        _span(_hard(_covered(edges, cells, 1.0))) for edges, cells in zip((box.down, box.across), size, strict=True)
    )
    return rows, columns


def bounds(region: Region) -> Box:
    """The region's box, or the smallest box around its mask where that is at least half."""
    if isinstance(region.shape, Box):
        return region.shape
    mask = region.shape
    inside = mask >= min(HALF, float(mask.max()))
    (top, bottom), (left, right) = (_first_and_last(inside.any(dim=1)), _first_and_last(inside.any(dim=0)))
    height, width = mask.shape
    return Box(left / width, top / height, (right - left) / width, (bottom - top) / height)


def _box_mask(box: Box, size: Size, feather: float) -> Tensor:
    soft = feather * min(size)
    axes = []
    for edges, cells in zip((box.down, box.across), size, strict=True):
        # A window wider than the box would leave no cell wholly inside.
        window = max(min(soft, (edges[1] - edges[0]) * cells), 1.0)
        covered = _covered(edges, cells, window)
        axes.append(_kept(covered, covered) if feather > 0 else _hard(covered))
    mask = torch.outer(*axes)
    return _kept(mask, mask)


def _covered(edges: tuple[float, float], cells: int, window: float) -> Tensor:
    """(cells,) share inside `edges` of a window, so many cells wide, around each cell's centre.

    One cell wide, it is the share of the cell itself. What of the window is beyond the picture does not count.
    """
    centres = torch.arange(cells, dtype=torch.float64) + HALF
    first, last = (centres - window / 2).clamp(min=0), (centres + window / 2).clamp(max=cells)
    inside = last.clamp(max=edges[1] * cells) - first.clamp(min=edges[0] * cells)
    return (inside / (last - first)).clamp(0, 1).float()


def _free_mask(mask: Tensor, size: Size, feather: float) -> Tensor:
    mask = mask.float().cpu()
    reach = round(feather * min(mask.shape) / 2)
    blurred = _averaged(_averaged(mask.double(), reach).T, reach).T.float()
    covered = F.adaptive_avg_pool2d(blurred[None], size)[0]
    return _kept(covered, covered) if feather > 0 else _hard(covered)


def _averaged(mask: Tensor, reach: int) -> Tensor:
    """(h, w) float64: along each row of `mask` the mean of a cell and of `reach` cells to either side, in the picture.

    By running sums, so that a wide window takes no longer. Of whole steps, whose sums are exact: where nothing is, 0.
    """
    cells = torch.arange(mask.shape[1])
    first, last = (cells - reach).clamp(min=0), (cells + reach + 1).clamp(max=mask.shape[1])
    total = F.pad((mask / _STEP).round().cumsum(dim=1), (1, 0))
    return (total[:, last] - total[:, first]) * _STEP / (last - first)


def _hard(covered: Tensor) -> Tensor:
    return _kept((covered >= HALF - _SLACK).float(), covered)


def _kept(mask: Tensor, covered: Tensor) -> Tensor:
    """`mask`, and where nothing of it reaches a half, the cell covered most set to 1."""
    if float(mask.max()) >= HALF - _SLACK:
        return mask
    best = (covered >= covered.max() - _SLACK).nonzero().double()
    cells = torch.cartesian_prod(*(torch.arange(side) for side in covered.shape)).reshape(-1, covered.ndim).double()
    centre = (cells * covered.flatten().double()[:, None]).sum(dim=0) / covered.sum()
    nearest = best[(best - centre).square().sum(dim=1).argmin()].long()
    kept = mask.clone()
    kept[tuple(nearest)] = 1
    return kept


def _span(inside: Tensor) -> slice:
    return slice(*_first_and_last(inside > 0))


def _first_and_last(inside: Tensor) -> tuple[int, int]:
    found = inside.nonzero()
    return int(found[0]), int(found[-1]) + 1


Rule = Callable[[Sequence[Region], Tensor], tuple[Tensor, Tensor]]


def _mean(_regions: Sequence[Region], presence: Tensor) -> tuple[Tensor, Tensor]:
    """Regions share a cell by their weights (Mix-of-Show); what they leave of 1 is the whole picture's."""
    total = presence.sum(dim=0)
    return presence / total.clamp(min=1), (1 - total).clamp(min=0)


def _priority(regions: Sequence[Region], presence: Tensor) -> tuple[Tensor, Tensor]:
    """The highest priority, among equals the last, takes its part; the next takes of what that leaves; and so on."""
    weights, left = torch.zeros_like(presence), torch.ones_like(presence[0])
    for number in sorted(range(len(regions)), key=lambda n: (regions[n].priority, n), reverse=True):
        weights[number] = presence[number].clamp(max=1) * left
        left = left - weights[number]
    return weights, left.clamp(min=0)


def _nobody(size: Size) -> tuple[Tensor, Tensor]:
    return torch.zeros(0, size[0] * size[1]), torch.ones(size[0] * size[1])


_RULES: Mapping[str, Rule] = {"mean": _mean, "priority": _priority}
