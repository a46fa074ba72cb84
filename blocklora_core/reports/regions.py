"""The layout of regions as a picture: who has which cells, in the concepts' colours."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw
from torch import Tensor

from ..regions.layout import OverlapRule, Size, bounds, layout
from ..regions.region import Region
from .palette import FREE, INK, PAPER, colour

LONGER_SIDE, CELL, PADDING = 512, 4, 4


def regions_picture(regions: Sequence[Region], rule: OverlapRule = "mean") -> Image.Image:
    """Regions in their colours, mixed where they share cells; grey is the whole picture's prompt.

    As tall and wide as the first freehand mask, in proportion; a square without one.
    """
    width, height = _size(_shape_of_masks(regions))
    grid = layout(regions, (height // CELL, width // CELL), rule)
    colours = np.array([FREE, *(colour(number) for number in range(len(regions)))], dtype=np.float32)
    shares = np.concatenate([grid.base[None].numpy(), grid.weights.numpy()])
    cells = (shares.T @ colours).round().astype(np.uint8).reshape(*grid.size, 3)
    picture = Image.fromarray(cells).resize((width, height), Image.Resampling.NEAREST)
    draw = ImageDraw.Draw(picture)
    for number, region in enumerate(regions):
        _write(draw, region.concept or f"{number + 1}", region, (width, height))
    return picture


def _shape_of_masks(regions: Sequence[Region]) -> Size:
    masks = [region.shape for region in regions if isinstance(region.shape, Tensor)]
    return (masks[0].shape[0], masks[0].shape[1]) if masks else (1, 1)


def _size(shape: Size) -> tuple[int, int]:
    """Width and height in whole cells, the longer side LONGER_SIDE."""
    height, width = (max(round(side * LONGER_SIDE / max(shape) / CELL), 1) * CELL for side in shape)
    return width, height


def _write(draw: ImageDraw.ImageDraw, name: str, region: Region, size: tuple[int, int]) -> None:
    """The region's name on a plate in the middle of it, within the picture."""
    box = bounds(region)
    left, top, right, bottom = draw.textbbox((0, 0), name)
    centre = [sum(edges) / 2 * side for edges, side in zip((box.across, box.down), size, strict=True)]
    spans = (right - left + 2 * PADDING, bottom - top + 2 * PADDING)
    x, y = (min(max(at - span / 2, 0), max(side - span, 0)) for at, span, side in zip(centre, spans, size, strict=True))
    draw.rectangle((x, y, x + spans[0], y + spans[1]), fill=PAPER)
    draw.text((x + PADDING - left, y + PADDING - top), name, fill=INK)
