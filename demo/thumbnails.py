"""`python -m demo.thumbnails PICTURES`: the templates' thumbnails, from what the demo made (docs/) and was taught.

PICTURES is ComfyUI's input/blocklora_demo. Two are not drawn here: "Five People, One Picture" and "A Person in a Style"
are pictures of the demo's base, as it gave them.
"""

from __future__ import annotations

import sys
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

ROOT = Path(__file__).resolve().parents[1]
SIDE, GROUND, INK = 512, "white", "#444"
COLOURS = ("#3b7de0", "#f08c3c")


def docs(name: str, box: tuple[int, int, int, int]) -> Image.Image:
    """A part of a picture of docs/."""
    return Image.open(ROOT / "docs" / name).convert("RGB").crop(box)


def taught(folder: Path, name: str, count: int) -> Image.Image:
    """Training pictures side by side, each 96 pixels wide."""
    found = sorted((folder / name).glob("*_white.png"))[:count]
    row = Image.new("RGB", (96 * len(found), 96), GROUND)
    for number, path in enumerate(found):
        row.paste(Image.open(path).convert("RGB").resize((96, 96)), (96 * number, 0))
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
    room = SIDE // len(parts)
    for number, (text, part) in enumerate(parts):
        scale = min((SIDE - 24) / part.width, (room - 48) / part.height)
        scaled = part.resize((round(part.width * scale), round(part.height * scale)), Image.Resampling.LANCZOS)
        draw.text((12, room * number + 8), text, fill=INK, font=font)
        made.paste(scaled, ((SIDE - scaled.width) // 2, room * number + 38 + (room - 48 - scaled.height) // 2))
    return made


def boxed(picture: Image.Image) -> Image.Image:
    """The two halves of a picture, each in a box."""
    made = picture.copy()
    draw, middle = ImageDraw.Draw(made), picture.width // 2
    for colour, left in zip(COLOURS, (2, middle + 2), strict=True):
        draw.rectangle((left, 2, left + middle - 6, picture.height - 4), outline=colour, width=3)
    return made


def thumbnails(folder: Path) -> dict[str, Image.Image]:
    """Title of a template -> its picture."""
    alone, both = docs("demo.png", (0, 23, 408, 223)), docs("demo.png", (0, 254, 408, 457))
    mixed, apart = (every_other(docs("four.png", box), 8) for box in ((0, 22, 896, 133), (0, 162, 896, 276)))
    summed, fused = docs("inspect.png", (310, 420, 595, 530)), docs("inspect.png", (607, 420, 892, 530))
    amelia, zed = taught(folder, "amelia", 4), taught(folder, "zed", 4)
    return {
        "Merge What You Have": sheet([("a plain sum", mixed), ("kept apart", apart)]),
        "Two People in Two Boxes": sheet([("each in their half", boxed(both))]),
        "Train a Person": sheet([("what it is shown", amelia), ("what it paints", alone)]),
        "Train Two People, Then Both": sheet([("one", amelia), ("the other", zed), ("both", both)]),
        "See Who Will Mix, Then Export": sheet([("loud to each other", summed), ("kept apart", fused)]),
    }


def main(folder: str) -> None:
    for title, picture in thumbnails(Path(folder)).items():
        picture.save(ROOT / "example_workflows" / f"{title}.jpg", quality=85)


if __name__ == "__main__":
    main(*sys.argv[1:])
