"""`python -m demo.thumbnails ART`: the templates' thumbnails, from what the demo made (docs/) and was taught.

ART is the folder with the drawings of `run.py bench people boxes`, .comfyui/people_study/art.
"""

from __future__ import annotations

import sys
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from demo.concepts import CONCEPTS

ROOT = Path(__file__).resolve().parents[1]
SIDE, GROUND, INK = 512, "white", "#444"
COLOURS = ("#3b7de0", "#f08c3c")
BADGE = 72
"""The browser of templates of ComfyUI 0.33 lays a badge over the upper left corner: so much at the top stays empty."""


def docs(name: str, box: tuple[int, int, int, int]) -> Image.Image:
    """A part of a picture of docs/."""
    return Image.open(ROOT / "docs" / name).convert("RGB").crop(box)


FIVE = ("dev1", "dev4", "dev9", "dev6", "dev3")
"""From left to right in docs/people_boxes.jpg: people of the study's development cast."""


def side_by_side(found: list[Image.Image]) -> Image.Image:
    row = Image.new("RGB", (128 * len(found), 128), GROUND)
    for number, picture in enumerate(found):
        row.paste(picture.convert("RGB").resize((128, 128), Image.Resampling.LANCZOS), (128 * number, 0))
    return row


def taught(*names: str, each: int = 1) -> Image.Image:
    """The first training pictures of each."""
    people = {person.folder: person for person in CONCEPTS}
    return side_by_side([picture for name in names for picture, _ in list(people[name].pictures())[:each]])


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
    alone, both = docs("demo.png", (0, 22, 406, 222)), docs("demo.png", (306, 250, 606, 450))
    four = every_other(docs("four.png", (0, 178, 1066, 306)), 8)
    summed, fused = docs("inspect.png", (310, 420, 595, 530)), docs("inspect.png", (607, 420, 892, 530))
    five = docs("people_boxes.jpg", (330, 264, 1042, 392))
    amelia, zed = taught("amelia", each=4), taught("zed", each=4)
    rows = docs("people_styles.jpg", (330, 0, 1412, 128)), docs("people_styles.jpg", (330, 528, 1412, 656))
    own, styled = (every_other(row, 8) for row in rows)
    everyone = side_by_side([Image.open(art / name / "training" / "00.png") for name in FIVE])
    return {
        "Merge What You Have": sheet([("four people in one model", four)]),
        "Two People in Two Boxes": sheet([("each in their half", boxed(both))]),
        "Five People, One Picture": sheet([("each taught alone", everyone), ("in one picture", five)]),
        "A Person in a Style": sheet([("people", own), ("in a style that was taught as well", styled)]),
        "Train a Person": sheet([("what it is shown", amelia), ("what it paints", alone)]),
        "Train Two People, Then Both": sheet([("one", amelia), ("the other", zed), ("both", both)]),
        "See Who Will Mix, Then Export": sheet([("loud to each other", summed), ("kept apart", fused)]),
    }


def main(folder: str) -> None:
    for title, picture in thumbnails(Path(folder)).items():
        picture.save(ROOT / "example_workflows" / f"{title}.jpg", quality=85)


if __name__ == "__main__":
    main(*sys.argv[1:])
