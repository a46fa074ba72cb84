"""Where the concepts of `bench boxes` stand, and what they are trained on to stand there."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from PIL import Image

from blocklora_core.regions import Box
from demo.art import BACKGROUNDS, SIZE
from demo.cast import Member, Picture, Pictures
from demo.people.captions import with_article

GAP = 16
"""Pixels between two boxes of a row."""
SIDES = ("left", "right")


@dataclass(frozen=True)
class Layout:
    """size: of the picture, height and width. boxes: of the concepts. seen: what the evaluator looks at, squares.
    sides: where the base's captions would say that each stands, if they do. across: pictures in a row of the figure."""

    size: tuple[int, int]
    boxes: tuple[Box, ...]
    seen: tuple[Box, ...]
    sides: tuple[str, ...]
    across: int

    @property
    def count(self) -> int:
        return len(self.boxes)

    def member(self, member: Member) -> Member:
        """The concept, drawn as it is to stand."""
        return replace(member, source=Halved(member.source)) if any(self.sides) else member

    def phrases(self, names: tuple[str, ...]) -> list[str]:
        """What is asked for in each box."""
        placed = zip(map(with_article, names), self.sides, strict=True)
        return [f"{name} on the {side}" if side else name for name, side in placed]


@dataclass(frozen=True)
class Halved:
    """A concept's pictures at half their size, once on the left and once on the right, as the base's pairs stand."""

    source: Pictures

    def __call__(self, art: Path, member: Member, held: bool) -> Iterator[Picture]:
        for picture, caption in self.source(art, member, held):
            words, ground = caption.removesuffix(" background").rsplit(" on a ", 1)
            small = picture.resize((SIZE // 2, SIZE // 2), Image.Resampling.LANCZOS)
            for side, left in zip(SIDES, (0, SIZE // 2), strict=True):
                canvas = Image.new("RGB", (SIZE, SIZE), BACKGROUNDS[ground])
                canvas.paste(small, (left, SIZE // 4))
                yield canvas, f"{words} on the {side} on a {ground} background"


def row(count: int, across: int, side: int = SIZE) -> Layout:
    """Boxes of `side` pixels side by side: each as large as the base draws, the whole wider."""
    width = count * (side + GAP) - GAP
    boxes = tuple(Box(number * (side + GAP) / width, 0.0, side / width, 1.0) for number in range(count))
    return Layout((side, width), boxes, boxes, ("",) * count, across)


HALVES = Layout(
    (SIZE, SIZE), (Box(0.0, 0.0, 0.5, 1.0), Box(0.5, 0.0, 0.5, 1.0)),
    (Box(0.0, 0.25, 0.5, 0.5), Box(0.5, 0.25, 0.5, 0.5)), SIDES, 6,
)  # fmt: skip
"""Two in one picture of the base's size, which has seen such pairs."""

LAYOUTS: Mapping[str, Layout] = {"halves": HALVES, "2": row(2, 3), "3": row(3, 2), "5": row(5, 1)}
