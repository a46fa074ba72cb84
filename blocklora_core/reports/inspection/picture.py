"""The report as a picture: the map of rows, pairs as tables of colours, and the paper's Fig. 4, layer by layer."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from PIL import Image

from ...concept import keys
from ...concept.concept import Stack
from ...concept.layer import Layer
from ...concept.rows import Rows, contains
from ..palette import FREE, INK, WARNING, colour
from ..panels import LINE, WIDTH, Cells, Draw, chart, new_panel, page, table
from .figures import Inspection, PairFigures

MAP_HEIGHT, COLUMN, GAP = 320, 84, 10
MOST_COLUMNS = 10


@dataclass(frozen=True)
class _Group:
    """Weights whose rows the concepts hold alike: one column of the map."""

    rows: int
    parts: int
    held: tuple[tuple[int, Rows], ...]


def report_picture(stack: Stack, inspection: Inspection) -> Image.Image:
    """Map, legend, pairs and layers of `inspection`, which must be of `stack`."""
    return page([_map(stack), *_tables(inspection), *_charts(inspection)])


def _groups(stack: Stack) -> dict[_Group, int]:
    """Groups, with the number of weights in each, those of most weights first."""
    found: dict[_Group, int] = {}
    for name in sorted({name for lora in stack for name in lora.layers}):
        layers = {at: lora.layers[name] for at, lora in enumerate(stack) if name in lora.layers}
        held = tuple((at, layer.rows) for at, layer in layers.items())
        group = _Group(next(iter(layers.values())).out_features, _parts(name, layers.values()), held)
        found[group] = found.get(group, 0) + 1
    return dict(sorted(found.items(), key=lambda item: -item[1]))


def _parts(name: str, layers: Iterable[Layer]) -> int:
    return max(len(layer.parts) for layer in layers) or keys.fused_parts(name)


def _map(stack: Stack) -> Image.Image:
    groups = _groups(stack)
    shown = list(groups.items())[:MOST_COLUMNS]
    legend = (len(stack) + 3) // 4
    more = f"; {len(groups) - len(shown)} rarer kinds are not shown" if len(groups) > len(shown) else ""
    title = f"Who owns which rows: a column for each kind of weight, its first row at the top{more}"
    image, draw = new_panel(WIDTH, MAP_HEIGHT + (legend + 4) * LINE, title)
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
    return {1: "", 2: " (GEGLU)", 3: " (Q, K, V)"}.get(group.parts, f" ({group.parts} parts)")


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
    found = [table(names, "Cosine of the changes, mean over layers", _both_ways(inspection, lambda pair: pair.cosine))]
    for title, crosstalk in (
        ("Crosstalk in a plain sum*", "summed"),
        (f"Crosstalk after {inspection.solved}*", "solved"),
    ):
        cells = _pair_crosstalk(inspection, crosstalk)
        if cells:
            found.append(table(names, title, cells))
    if len(found) > 1:
        found.append(
            new_panel(0, LINE, "* how loudly the row's concept answers to the column's inputs; to its own = 1")[0]
        )
    return found


def _both_ways(inspection: Inspection, value: Callable[[PairFigures], float | None]) -> Cells:
    cells: dict[tuple[str, str], float] = {}
    for pair in inspection.pairs:
        found = value(pair)
        if found is not None:
            cells[pair.first, pair.second] = cells[pair.second, pair.first] = found
    return cells


def _pair_crosstalk(inspection: Inspection, which: str) -> Cells:
    cells: dict[tuple[str, str], float] = {}
    for pair in inspection.pairs:
        found = getattr(pair, which)
        if found is not None:
            cells[pair.second, pair.first], cells[pair.first, pair.second] = found
    return cells


def _charts(inspection: Inspection) -> list[Image.Image]:
    layers = [layer for layer in inspection.layers if len(layer.norms) > 1]
    if not layers:
        return []
    return [
        chart("Cosine of the changes, layer by layer (mean over pairs)", [([layer.cosine for layer in layers], INK)]),
        chart("Share of entries with conflicting signs, layer by layer", [([x.conflicts for x in layers], WARNING)]),
    ]
