"""Training folders of the demo's concepts, made from Kenney's CC0 characters inside the `arcade` package."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from demo.art import BACKGROUNDS, SIZE, paste

CHARACTERS = Path("arcade/resources/assets/images/animated_characters")
POSES = ("idle", "jump", *(f"walk{number}" for number in range(8)))
GROUNDS = ("white", "blue")
BUST = 0.74


@dataclass(frozen=True)
class DemoConcept:
    """A character: its folder and file prefix in the package, the name to teach and its class word."""

    folder: str
    prefix: str
    name: str
    class_word: str


CONCEPTS = (
    DemoConcept("female_adventurer", "femaleAdventurer", "<amelia>", "girl"),
    DemoConcept("zombie", "zombie", "<zed>", "man"),
    DemoConcept("male_adventurer", "maleAdventurer", "<felix>", "boy"),
    DemoConcept("female_person", "femalePerson", "<nora>", "woman"),
    DemoConcept("male_person", "malePerson", "<omar>", "man"),
    DemoConcept("robot", "robot", "<rivet>", "robot"),
)


def bust(art: Path, concept: DemoConcept, pose: str) -> Image.Image:
    """Head and shoulders of one pose, RGBA."""
    sprite = Image.open(art / CHARACTERS / concept.folder / f"{concept.prefix}_{pose}.png").convert("RGBA")
    left, top, right, bottom = sprite.getbbox() or (0, 0, *sprite.size)
    return sprite.crop((left, top, right, round(top + (bottom - top) * BUST)))


def pictures(art: Path, concept: DemoConcept):
    """(name, picture, caption) of every training picture: each pose on each ground."""
    for ground in GROUNDS:
        for pose in POSES:
            canvas = Image.new("RGB", (SIZE, SIZE), BACKGROUNDS[ground])
            paste(canvas, bust(art, concept, pose), (SIZE / 2, SIZE / 2), SIZE * 0.9)
            yield f"{pose}_{ground}", canvas, f"a {concept.class_word} on a {ground} background"


def write_concept(art: Path, concept: DemoConcept, folder: Path) -> int:
    """Write pictures and caption files; returns how many pictures."""
    folder.mkdir(parents=True, exist_ok=True)
    count = 0
    for name, picture, caption in pictures(art, concept):
        picture.save(folder / f"{name}.png")
        (folder / f"{name}.txt").write_text(caption + "\n", encoding="utf-8")
        count += 1
    return count
