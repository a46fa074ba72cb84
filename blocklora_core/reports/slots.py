"""Who holds which slot, as a picture: a row of cells for each base and scheme."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from PIL import Image, ImageDraw

from ..files.slots import Table
from .palette import FREE, INK, PAPER, WARNING, colour

CELL, HEIGHT, COLUMNS, MARGIN, LINE = 58, 40, 16, 16, 14


def slot_picture(tables: Sequence[Table]) -> Image.Image:
    """Free slots are grey, held ones coloured with the file's name, clashes framed in red."""
    heights = [_height(table) for table in tables] or [LINE]
    picture = Image.new("RGB", (COLUMNS * CELL + 2 * MARGIN, sum(heights) + (len(heights) + 1) * MARGIN), PAPER)
    draw = ImageDraw.Draw(picture)
    top = MARGIN
    if not tables:
        draw.text((MARGIN, top), "No row-block files here.", fill=INK)
    for table, height in zip(tables, heights, strict=False):
        _draw_table(draw, table, top)
        top += height + MARGIN
    return picture


def _height(table: Table) -> int:
    return LINE + 6 + -(-table.scheme.slots // COLUMNS) * (HEIGHT + 4)


def _draw_table(draw: ImageDraw.ImageDraw, table: Table, top: int) -> None:
    draw.text((MARGIN, top), f"{table.title}: {len(table.free)} free", fill=INK)
    owners = sorted({file for files in table.held.values() for file in files})
    for slot in range(table.scheme.slots):
        left = MARGIN + slot % COLUMNS * CELL
        y = top + LINE + 6 + slot // COLUMNS * (HEIGHT + 4)
        files = table.held.get(slot, [])
        box = (left, y, left + CELL - 4, y + HEIGHT)
        clash = slot in table.clashes
        draw.rectangle(
            box,
            fill=colour(owners.index(files[0])) if files else FREE,
            outline=WARNING if clash else None,
            width=4 if clash else 0,
        )
        draw.text((left + 6, y + 4), str(slot), fill=PAPER if files else INK)
        draw.text((left + 6, y + 22), f"{len(files)} files" if clash else _short(files), fill=PAPER)


def _short(files: Sequence[Path]) -> str:
    return files[0].stem[:7] if files else ""
