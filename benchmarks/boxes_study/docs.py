"""Puts the figures of `bench boxes` and `bench regions` into docs/regions.md."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from benchmarks.common.shared import write_json
from benchmarks.identity_study.docs import Results, Tables, fill, interval, table_of

PARTS = {"boxes": "boxes.json", "steps": "boxes_steps.json", "cost": "regions.json"}
COUNTS = ("2", "5", "10")
HEADS = {"halves": "2 in halves"}
WAYS = {
    "ours": "Regional Sampling", "stock_masks": "Stock: a masked conditioning each",
    "stock_areas": "Stock: an area each", "stock_hooks": "Stock: masks, and a hook LoRA each",
    "per_region": "A forward for each region", "composer": "LoRA-Composer, a step that is guided",
}  # fmt: skip


def write(folder: Path, part: str, found: Results) -> None:
    """Keep a part's figures in `folder`, and put all into regions.md there, once all parts are there."""
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / PARTS[part], found)
    paths = {name: folder / file for name, file in PARTS.items()}
    if all(path.is_file() for path in paths.values()):
        fill(folder / "regions.md", read(folder), TABLES)


def read(folder: Path) -> dict[str, Any]:
    return {name: json.loads((folder / file).read_text(encoding="utf-8")) for name, file in PARTS.items()}


def boxes(results: Results) -> str:
    """Every setting: the share of boxes that show the right concept, and their image alignment."""
    settings = results["boxes"]["settings"]
    counts = [name for name in next(iter(settings.values())) if name != "title"]
    heads = [HEADS.get(count, count) for count in counts]

    def row(found: Mapping[str, Any]) -> list[str]:
        counted = [found[count] for count in counts]
        right = [interval(one["right"], ".0%") for one in counted]
        return [found["title"], *right, *(f"{one['image'][0]:.2f}" for one in counted)]

    header = " | ".join(["", *(f"right of {head}" for head in heads), *(f"image of {head}" for head in heads)])
    return table_of(header, map(row, settings.values()))


def steps(results: Results) -> str:
    """Every strength of guidance on the noise to choose by, and the presets on the noise to judge by."""
    chosen, judged = (results["steps"][part] for part in ("settings", "judged"))
    counts = [name for name in next(iter(chosen.values())) if name != "title"]
    kinds = (("right", ".0%"), ("image", ".3f"))

    def row(name: str) -> list[str]:
        parts = (chosen[name], judged.get(name))
        cells = ((part and part[count][kind], form) for kind, form in kinds for count in counts for part in parts)
        return [chosen[name]["title"], *(interval(value, form) for value, form in cells)]

    heads = [f"{kind} of {HEADS.get(count, count)}" for kind, _ in kinds for count in counts]
    header = " | ".join(["", *(f"{head}, {noise} noise" for head in heads for noise in ("other", "the table's"))])
    return table_of(header, map(row, chosen))


def cost(results: Results) -> str:
    """A step of every way, over a step with one prompt."""
    figures = results["cost"]

    def cell(way: str, count: str) -> str:
        seconds = figures.get(f"{way}_{count}_seconds")
        return f"{seconds / figures['plain_seconds']:.2f}" if seconds else ""

    rows = ([title, *(cell(way, count) for count in COUNTS)] for way, title in WAYS.items())
    return table_of(" | ".join(["", *(f"{count} regions" for count in COUNTS)]), rows)


TABLES: Tables = {"boxes": boxes, "steps": steps, "cost": cost}
