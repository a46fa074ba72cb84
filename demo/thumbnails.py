"""`python -m demo.thumbnails ART`: the templates' thumbnails, from what the demo made (docs/) and was taught.

ART is the folder with the demo's drawings, .comfyui/art. "A Person in a Style" shows only what goes in: the demo's base
drew no picture of the two that one would recognise.
"""

from __future__ import annotations

import sys
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from demo.cast import FIFTEEN

ROOT = Path(__file__).resolve().parents[1]
SIDE, GROUND, INK = 512, "white", "#444"
COLOURS = ("#3b7de0", "#f08c3c")
BADGE = 72
"""The browser of templates of ComfyUI 0.33 lays a badge over the upper left corner: so much at the top stays empty."""

FIVE = ("nora", "orbit", "amelia", "felix", "zed")
"""Who stands in the first picture of docs/boxes_5.jpg, from left to right."""


def docs(name: str, box: tuple[int, int, int, int]) -> Image.Image:
    """A part of a picture of docs/."""
    return Image.open(ROOT / "docs" / name).convert("RGB").crop(box)


def taught(art: Path, *names: str, each: int = 1) -> Image.Image:
    """The first training pictures of each, side by side, 96 pixels wide."""
    members = {member.name.strip("<>"): member for member in FIFTEEN}
    found = [picture for name in names for picture, _ in members[name].training(art)[:each]]
    row = Image.new("RGB", (96 * len(found), 96), GROUND)
    for number, picture in enumerate(found):
        row.paste(picture.convert("RGB").resize((96, 96)), (96 * number, 0))
    return row


def every_other(row: Image.Image, count: int) -> Image.Image:
    """Of `count` square pictures side by side, every other one."""
    width = row.width // count
    made = Image.new("RGB", (width * (count // 2), row.height), GROUND)
    for number in range(count // 2):
        made.paste(row.crop((2 * number * width, 0, (2 * number + 1) * width, row.height)), (number * width, 0))
    return made


def sheet(parts: list[tuple[str, Image.Image]]) -> Image.Image:
    """Pictures one below the other, each as wide as fits, with a line of text above each."""
    made = Image.new("RGB", (SIDE, SIDE), GROUND)
    draw, font = ImageDraw.Draw(made), ImageFont.load_default(20)
    room = (SIDE - BADGE) // len(parts)
    for number, (text, part) in enumerate(parts):
        scale = min((SIDE - 24) / part.width, (room - 48) / part.height)
        scaled = part.resize((round(part.width * scale), round(part.height * scale)), Image.Resampling.LANCZOS)
        top = BADGE + room * number
        draw.text((12, top), text, fill=INK, font=font)
        made.paste(scaled, ((SIDE - scaled.width) // 2, top + 30 + (room - 48 - scaled.height) // 2))
    return made


def boxed(picture: Image.Image) -> Image.Image:
    """The two halves of a picture, each in a box."""
    made = picture.copy()
    draw, middle = ImageDraw.Draw(made), picture.width // 2
    for colour, left in zip(COLOURS, (2, middle + 2), strict=True):
        draw.rectangle((left, 2, left + middle - 6, picture.height - 4), outline=colour, width=3)
    return made


def thumbnails(art: Path) -> dict[str, Image.Image]:
    """Title of a template -> its picture."""
    alone, both = docs("demo.png", (0, 23, 408, 223)), docs("demo.png", (0, 254, 408, 457))
    mixed, apart = (every_other(docs("four.png", box), 8) for box in ((0, 22, 896, 133), (0, 162, 896, 276)))
    summed, fused = docs("inspect.png", (310, 420, 595, 530)), docs("inspect.png", (607, 420, 892, 530))
    five = docs("boxes_5.jpg", (330, 201, 873, 295))
    amelia, zed = taught(art, "amelia", each=4), taught(art, "zed", each=4)
    return {
        "Merge What You Have": sheet([("a plain sum", mixed), ("kept apart", apart)]),
        "Two People in Two Boxes": sheet([("each in their half", boxed(both))]),
        "Five People, One Picture": sheet([("each taught alone", taught(art, *FIVE)), ("in one picture", five)]),
        "A Person in a Style": sheet([("a person", amelia), ("a style", taught(art, "draft", each=4))]),
        "Train a Person": sheet([("what it is shown", amelia), ("what it paints", alone)]),
        "Train Two People, Then Both": sheet([("one", amelia), ("the other", zed), ("both", both)]),
        "See Who Will Mix, Then Export": sheet([("loud to each other", summed), ("kept apart", fused)]),
    }


def main(folder: str) -> None:
    for title, picture in thumbnails(Path(folder)).items():
        picture.save(ROOT / "example_workflows" / f"{title}.jpg", quality=85)


if __name__ == "__main__":
    main(*sys.argv[1:])
