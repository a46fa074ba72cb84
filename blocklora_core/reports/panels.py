"""How the pictures of reports are drawn: panels side by side, tables of colours, charts."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

from PIL import Image, ImageDraw

from .palette import FREE, INK, PAPER, Colour, colour, shade

Draw = ImageDraw.ImageDraw
Cells = Mapping[tuple[str, str], float]
"""(row, column) -> value; cells that are not there stay empty."""

WIDTH, MARGIN, LINE = 930, 16, 14
CHART_HEIGHT = 110
CELL, NAME = 46, 96


def page(panels: Sequence[Image.Image]) -> Image.Image:
    """One picture of all panels, as many beside each other as fit."""
    lines = _lines(panels)
    height = sum(max(panel.height for panel in line) + MARGIN for line in lines) + MARGIN
    picture = Image.new("RGB", (max(WIDTH, *map(_width, lines)) + 2 * MARGIN, height), PAPER)
    top = MARGIN
    for line in lines:
        left = MARGIN
        for panel in line:
            picture.paste(panel, (left, top))
            left += panel.width + MARGIN
        top += max(panel.height for panel in line) + MARGIN
    return picture


def _lines(panels: Sequence[Image.Image]) -> list[list[Image.Image]]:
    """Panels side by side as far as they fit."""
    lines: list[list[Image.Image]] = []
    for panel in panels:
        if lines and _width([*lines[-1], panel]) <= WIDTH:
            lines[-1].append(panel)
        else:
            lines.append([panel])
    return lines


def _width(line: Sequence[Image.Image]) -> int:
    return sum(panel.width for panel in line) + MARGIN * (len(line) - 1)


def new_panel(width: int, height: int, title: str) -> tuple[Image.Image, Draw]:
    """An empty panel, wide enough for its title."""
    wide = ImageDraw.Draw(Image.new("RGB", (1, 1))).textlength(title)
    image = Image.new("RGB", (max(width, math.ceil(wide)), height), PAPER)
    draw = ImageDraw.Draw(image)
    draw.text((0, 0), title, fill=INK)
    return image, draw


def table(
    names: Sequence[str], title: str, cells: Cells, fill: Callable[[str, str, float], Colour] | None = None
) -> Image.Image:
    """Concepts against concepts: figures on a colour. fill: row, column, value -> the colour; without it, `shade`."""
    image, draw = new_panel(NAME + len(names) * CELL, (len(names) + 2) * (LINE + 4) + 4, title)
    for column, name in enumerate(names):
        draw.text((NAME + column * CELL + 2, LINE + 4), name[:7], fill=colour(column))
    for row, name in enumerate(names):
        top = (row + 2) * (LINE + 4)
        draw.text((0, top), name[:14], fill=colour(row))
        for column, other in enumerate(names):
            value = cells.get((name, other))
            if value is not None:
                box = (NAME + column * CELL, top - 2, NAME + (column + 1) * CELL - 2, top + LINE)
                draw.rectangle(box, fill=fill(name, other, value) if fill else shade(value))
                draw.text((box[0] + 6, top), f"{value:.2f}", fill=INK)
    return image


def chart(
    title: str, lines: Sequence[tuple[Sequence[float], Colour]], height: int = CHART_HEIGHT, ticks: Sequence[str] = ()
) -> Image.Image:
    """Lines over equal steps, from 0 or below up to their highest value. ticks: a label below each step."""
    image, draw = new_panel(WIDTH, height + (LINE if ticks else 0), title)
    left, right, top, bottom = 40, image.width - 10 - 20 * bool(ticks), LINE + 6, height - 6
    values = [value for line, _ in lines for value in line]
    high, low = max(*values, 0.1), min(*values, 0.0)
    across = (right - left) / max(max(len(line) for line, _ in lines) - 1, 1)

    def level(value: float) -> float:
        return bottom - (value - low) / (high - low) * (bottom - top)

    draw.line((left, level(0.0), right, level(0.0)), fill=FREE)
    draw.text((0, top - 4), f"{high:.2f}", fill=INK)
    draw.text((0, bottom - 10), f"{low:.2f}", fill=INK)
    for line, ink in lines:
        points = [(left + at * across, level(value)) for at, value in enumerate(line)]
        draw.line(points if len(points) > 1 else points * 2, fill=ink, width=2)
    for at, tick in enumerate(ticks):
        draw.text((left + at * across, bottom + 4), tick, fill=INK)
    return image
