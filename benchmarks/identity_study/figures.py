"""Pictures of what `bench identity` found."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from PIL import Image, ImageDraw, ImageFont

from benchmarks.identity_study.methods import LAMBDAS
from benchmarks.identity_study.plan import Plan
from benchmarks.identity_study.work import Cell, Folders
from blocklora_core.host.train.progress import to_picture
from blocklora_core.reports.palette import FREE, INK, PAPER, colour
from blocklora_core.reports.panels import page, table

CELL, TITLE, LINE = 88, 26, 16
WIDTH, HEIGHT, LEFT, RIGHT = 720, 300, 44, 12
SHOWN = (
    "default", "niche", "blocklora_fused", "blocklora", "affine", "gradient_fusion", "plain_niche_fusion", "orthogonal",
    "ed_average", "average", "sum", "ties", "knots",
)  # fmt: skip
CONFUSED = ("default", "blocklora", "average")

Results = Mapping[str, Any]
Line = tuple[str, Sequence[float]]


def draw(results: Results, plan: Plan, folders: Folders, out: Path) -> None:
    """All figures of the results, in `out`: charts as evidence_*.png, pictures as evidence_pictures.jpg."""
    methods = results["methods"]["methods"]
    sheet = grid(plan, folders, [name for name in SHOWN if name in methods])
    sheet.save(out / "evidence_pictures.jpg", quality=88)
    charts: dict[str, Image.Image | None] = {
        "retention": retention(methods),
        "confusion": confusions(results["methods"]["confusion"], plan),
        "erasure": erasure(methods, len(plan.members)),
        "many": many(results),
    }
    for name, chart in charts.items():
        if chart is not None:
            chart.save(out / f"evidence_{name}.png", optimize=True)


def grid(plan: Plan, folders: Folders, names: Sequence[str]) -> Image.Image:
    """A column a concept: its held-out picture, alone, then merged with all others by one method after the other.

    What a row is stands above it, so that the picture can be read at half its width.
    """
    rows: list[tuple[str, list[Image.Image]]] = [
        ("Held-out picture", [member.held_out(folders.art)[0] for member in plan.members])
    ]
    if "default" in names:
        alone = plan.alone(plan.recipes[plan.methods["default"].recipe], plan.seeds[0])
        rows.append(("Default, alone", [_first(cell, folders)[0] for cell in alone]))
    for name in names:
        cell = plan.merged(plan.methods[name], plan.seeds[0], len(plan.members))[0]
        rows.append((f"{plan.methods[name].title}, all {len(plan.members)} merged", _first(cell, folders)))
    sheet = Image.new("RGB", (len(plan.members) * CELL, len(rows) * (TITLE + CELL)), PAPER)
    ink, font = ImageDraw.Draw(sheet), ImageFont.load_default(TITLE * 0.75)
    for at, (title, found) in enumerate(rows):
        top = at * (TITLE + CELL)
        ink.text((4, top + 2), title, fill=INK, font=font)
        for column, picture in enumerate(found):
            sheet.paste(picture.resize((CELL, CELL)), (column * CELL, top + TITLE))
    return sheet


def _first(cell: Cell, folders: Folders) -> list[Image.Image]:
    """The first picture of each concept."""
    found = {case.member.name: shown for case, shown in reversed(list(cell.pictures(folders))) if not case.class_word}
    return [
        to_picture(found[name]) for name in dict.fromkeys(one.member.name for one in cell.cases if not one.class_word)
    ]


def retention(methods: Results) -> Image.Image | None:
    """The paper's Fig. 5: against the number merged, image alignment over that alone, and the share recognised."""
    whole = {name: found for name, found in methods.items() if len(found["merged"]) > 1}
    if not whole:
        return None
    ticks = ["1", *next(iter(whole.values()))["merged"]]

    def lines(alone: Callable[[Results], float], key: str) -> list[Line]:
        return [
            (found["title"], [alone(found), *(merged[key][0] for merged in found["merged"].values())])
            for found in whole.values()
        ]

    kept = plot("Image alignment over that alone, against the number merged", lines(lambda _: 1.0, "image_kept"), ticks)
    right = plot(
        "Share recognised as the right concept, against the number merged",
        lines(lambda found: found["alone"]["accuracy"][0], "accuracy"),
        ticks,
    )
    return beside([kept, right])


def erasure(methods: Results, count: int) -> Image.Image | None:
    """The share recognised and the image alignment with all merged, against lambda."""
    kinds = {"summed": "", "fused": "_fused"}
    if not all(f"erasure_{value:g}{end}" in methods for value in LAMBDAS for end in kinds.values()):
        return None

    def values(end: str, pick: Callable[[Results], float]) -> list[float]:
        return [pick(methods[f"erasure_{value:g}{end}"]) for value in LAMBDAS]

    lines = [
        (f"{kind}, all merged", values(end, lambda found: found["merged"][str(count)]["accuracy"][0]))
        for kind, end in kinds.items()
    ]
    lines.append(("alone", values("", lambda found: found["alone"]["accuracy"][0])))
    return plot("Share recognised against erasure", lines, [f"{value:g}" for value in LAMBDAS])


def many(results: Results) -> Image.Image | None:
    found = results.get("many", {}).get("methods", {}).get("many")
    if not found:
        return None
    ticks = ["1", *found["merged"]]
    merged = found["merged"].values()
    lines = [
        ("image alignment over that alone", [1.0, *(one["image_kept"][0] for one in merged)]),
        ("share recognised, of sixty", [found["alone"]["accuracy"][0], *(one["accuracy"][0] for one in merged)]),
    ]
    return plot("Sixty concepts in 64 slots, against the number merged", lines, ticks)


def confusions(found: Mapping[str, Mapping[str, Sequence[float]]], plan: Plan) -> Image.Image:
    """PromptCase for (row) against recognised (column), all merged."""
    names = [member.name for member in plan.members]
    panels = []
    for name in (one for one in CONFUSED if one in found):
        cells = {
            (row, names[at]): share for row, shares in found[name].items() for at, share in enumerate(shares) if share
        }
        panels.append(table(names, plan.methods[name].title, cells, _as_share))
    return page(panels)


def _as_share(row: str, column: str, value: float) -> tuple[int, int, int]:
    """Green where it is right, red where it is not."""
    goal = (120, 200, 140) if row == column else (240, 130, 110)
    red, green, blue = (round(255 + (part - 255) * value) for part in goal)
    return red, green, blue


def plot(title: str, lines: Sequence[Line], ticks: Sequence[str]) -> Image.Image:
    """Lines over equal steps from 0 to 1 or their highest value, with a legend."""
    image = Image.new("RGB", (WIDTH, HEIGHT + LINE * (len(lines) + 1)), PAPER)
    ink = ImageDraw.Draw(image)
    top, bottom, right = 24, HEIGHT - 20, WIDTH - RIGHT
    high = max(1.0, *(value for _, line in lines for value in line))
    across = (right - LEFT - 10) / max(len(ticks) - 1, 1)

    def level(value: float) -> float:
        return bottom - value / high * (bottom - top)

    ink.text((LEFT, 4), title, fill=INK)
    for share in (0.0, 0.2, 0.4, 0.6, 0.8, 1.0):
        ink.line((LEFT, level(share), right, level(share)), fill=FREE)
        ink.text((8, level(share) - 6), f"{share:.1f}", fill=INK)
    for at, tick in enumerate(ticks):
        ink.text((LEFT + at * across - 4, bottom + 6), tick, fill=INK)
    for number, (name, values) in enumerate(lines):
        own = colour(number)
        ink.line([(LEFT + at * across, level(value)) for at, value in enumerate(values)], fill=own, width=3)
        below = HEIGHT + number * LINE
        ink.line((LEFT, below + 7, LEFT + 24, below + 7), fill=own, width=3)
        ink.text((LEFT + 32, below), name, fill=INK)
    return image


def beside(pictures: Sequence[Image.Image]) -> Image.Image:
    sheet = Image.new("RGB", (sum(one.width for one in pictures), max(one.height for one in pictures)), PAPER)
    left = 0
    for one in pictures:
        sheet.paste(one, (left, 0))
        left += one.width
    return sheet
