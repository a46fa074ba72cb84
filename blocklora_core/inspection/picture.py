"""The report as a picture: the map of rows, pairs as tables of colours, and the paper's Fig. 4, layer by layer."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from PIL import Image, ImageDraw

from .. import keys
from ..lora import Stack
from ..rows import Rows, contains
from .figures import Inspection, PairFigures
from .palette import FREE, INK, PAPER, WARNING, Colour, colour, shade

Draw = ImageDraw.ImageDraw

WIDTH, MARGIN, LINE = 930, 16, 14
MAP_HEIGHT, COLUMN, GAP = 320, 84, 10
CHART_HEIGHT = 110
CELL, NAME = 46, 96
MOST_COLUMNS = 10


@dataclass(frozen=True)
class _Group:
    """Weights whose rows the concepts hold alike: one column of the map."""

    rows: int
    parts: int
    held: tuple[tuple[int, Rows], ...]


def report_picture(stack: Stack, inspection: Inspection) -> Image.Image:
    """Map, legend, pairs and layers of `inspection`, which must be of `stack`."""
    lines = _lines([_map(stack), *_tables(inspection), *_charts(inspection)])
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


def _panel(width: int, height: int, title: str) -> tuple[Image.Image, Draw]:
    wide = ImageDraw.Draw(Image.new("RGB", (1, 1))).textlength(title)
    image = Image.new("RGB", (max(width, math.ceil(wide)), height), PAPER)
    draw = ImageDraw.Draw(image)
    draw.text((0, 0), title, fill=INK)
    return image, draw


def _groups(stack: Stack) -> dict[_Group, int]:
    """Groups, with the number of weights in each, those of most weights first."""
    found: dict[_Group, int] = {}
    for name in sorted({name for lora in stack for name in lora.layers}):
        held = tuple((at, lora.layers[name].rows) for at, lora in enumerate(stack) if name in lora.layers)
        group = _Group(stack[held[0][0]].layers[name].out_features, keys.parts(name), held)
        found[group] = found.get(group, 0) + 1
    return dict(sorted(found.items(), key=lambda item: -item[1]))


def _map(stack: Stack) -> Image.Image:
    groups = _groups(stack)
    shown = list(groups.items())[:MOST_COLUMNS]
    legend = (len(stack) + 3) // 4
    more = f"; {len(groups) - len(shown)} rarer kinds are not shown" if len(groups) > len(shown) else ""
    title = f"Who owns which rows: a column for each kind of weight, its first row at the top{more}"
    image, draw = _panel(WIDTH, MAP_HEIGHT + (legend + 4) * LINE, title)
    for number, (group, weights) in enumerate(shown):
        left, top = number * (COLUMN + GAP), LINE + 4
        _draw_group(draw, group, left, top)
        draw.text((left, top + MAP_HEIGHT + 2), f"{group.rows} rows{_halves(group)}", fill=INK)
        draw.text((left, top + MAP_HEIGHT + 2 + LINE), f"{weights} weights", fill=INK)
    for number, lora in enumerate(stack):
        x, y = number % 4 * 230, MAP_HEIGHT + (number // 4 + 3) * LINE + 10
        draw.rectangle((x, y + 1, x + 10, y + 11), fill=colour(number))
        slot = "all rows" if lora.slot is None else f"slot {lora.slot}"
        draw.text((x + 16, y), f"{lora.concept.name}  {slot}", fill=INK)
    return image


def _halves(group: _Group) -> str:
    return {1: "", 2: " (GEGLU)", 3: " (Q, K, V)"}[group.parts]


def _draw_group(draw: Draw, group: _Group, left: int, top: int) -> None:
    for y in range(MAP_HEIGHT):
        x: float = left
        for number, width in _shares(group, y * group.rows / MAP_HEIGHT, (y + 1) * group.rows / MAP_HEIGHT):
            draw.line((round(x), top + y, round(x + width * COLUMN) - 1, top + y), fill=colour(number))
            x += width * COLUMN
        if round(x) < left + COLUMN:
            draw.line((round(x), top + y, left + COLUMN - 1, top + y), fill=FREE)


def _shares(group: _Group, start: float, end: float) -> list[tuple[int, float]]:
    """(concept, share of the line's width) for the line of pixels that stands for the rows from `start` to `end`, whole
    rows or not. Rows that several hold are divided among them.
    """
    parts = {row: min(end, row + 1) - max(start, row) for row in range(math.floor(start), math.ceil(end))}
    holders = [(at, sum(part for row, part in parts.items() if contains(held, row))) for at, held in group.held]
    whole = max(end - start, sum(number for _, number in holders))
    return [(at, number / whole) for at, number in holders if number]


def _tables(inspection: Inspection) -> list[Image.Image]:
    if not inspection.pairs:
        return []
    names = [concept.name for concept in inspection.concepts]
    found = [_table(names, "Cosine of the changes, mean over layers", _both_ways(inspection, lambda pair: pair.cosine))]
    for title, ears in (
        ("Crosstalk in a plain sum*", "summed"),
        (f"Crosstalk after {inspection.solved}*", "solved"),
    ):
        cells = _ears(inspection, ears)
        if cells:
            found.append(_table(names, title, cells))
    if len(found) > 1:
        found.append(
            _panel(0, LINE, "* how loudly the row's concept answers to the column's inputs; to its own = 1")[0]
        )
    return found


Cells = Mapping[tuple[str, str], float]


def _both_ways(inspection: Inspection, value: Callable[[PairFigures], float | None]) -> Cells:
    cells: dict[tuple[str, str], float] = {}
    for pair in inspection.pairs:
        found = value(pair)
        if found is not None:
            cells[pair.first, pair.second] = cells[pair.second, pair.first] = found
    return cells


def _ears(inspection: Inspection, which: str) -> Cells:
    cells: dict[tuple[str, str], float] = {}
    for pair in inspection.pairs:
        found = getattr(pair, which)
        if found is not None:
            cells[pair.second, pair.first], cells[pair.first, pair.second] = found
    return cells


def _table(names: Sequence[str], title: str, cells: Cells) -> Image.Image:
    image, draw = _panel(NAME + len(names) * CELL, (len(names) + 2) * (LINE + 4) + 4, title)
    for column, name in enumerate(names):
        draw.text((NAME + column * CELL + 2, LINE + 4), name[:7], fill=colour(column))
    for row, name in enumerate(names):
        top = (row + 2) * (LINE + 4)
        draw.text((0, top), name[:14], fill=colour(row))
        for column, other in enumerate(names):
            value = cells.get((name, other))
            if value is not None:
                box = (NAME + column * CELL, top - 2, NAME + (column + 1) * CELL - 2, top + LINE)
                draw.rectangle(box, fill=shade(value))
                draw.text((box[0] + 6, top), f"{value:.2f}", fill=INK)
    return image


def _charts(inspection: Inspection) -> list[Image.Image]:
    layers = [layer for layer in inspection.layers if len(layer.norms) > 1]
    if not layers:
        return []
    return [
        _chart("Cosine of the changes, layer by layer (mean over pairs)", [layer.cosine for layer in layers], INK),
        _chart("Share of entries with conflicting signs, layer by layer", [x.conflicts for x in layers], WARNING),
    ]


def _chart(title: str, values: Sequence[float], line: Colour) -> Image.Image:
    image, draw = _panel(WIDTH, CHART_HEIGHT, title)
    left, right, top, bottom = 40, image.width - 10, LINE + 6, CHART_HEIGHT - 6
    high, low = max(*values, 0.1), min(*values, 0.0)
    across = (right - left) / max(len(values) - 1, 1)

    def height(value: float) -> float:
        return bottom - (value - low) / (high - low) * (bottom - top)

    draw.line((left, height(0.0), right, height(0.0)), fill=FREE)
    draw.text((0, top - 4), f"{high:.2f}", fill=INK)
    draw.text((0, bottom - 10), f"{low:.2f}", fill=INK)
    points = [(left + at * across, height(value)) for at, value in enumerate(values)]
    draw.line(points if len(points) > 1 else points * 2, fill=line, width=2)
    return image
