"""The people of the demo, and their training pictures: `python -m demo.people.sitters` draws them into demo/pictures.

Each is held out from the base by the rule of genes.py. Captions say what differs from picture to picture and how it is
drawn, as the base's own do, and nothing that makes the person: that is for the concept to learn.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

from PIL import Image

from demo.concepts import CONCEPTS, PICTURES, DemoConcept
from demo.people.captions import Detail
from demo.people.corpus import prepare_renderer, render, write_records
from demo.people.genes import Genes, Style, is_held_out
from demo.people.portraits import portraits
from demo.people.styles import STYLES

COUNT = 12
VARYING_ALONE = Detail(expression=1, hair=0, skin=0, extras=0, eyes=1, clothes=1, who=1)
COLOURS = 128
"""A drawing has few: so many lose nothing that one sees, and make a file half as large."""

Sitter = tuple[str, Genes]
SITTERS: dict[str, Sitter] = {
    "<amelia>": ("personas", {
        "hair": "bobCut", "hair_colour": "red", "skin": "light", "facial_hair": "none", "glasses": "glasses",
        "nose": "smallRound",
    }),
    "<zed>": ("personas", {
        "hair": "bunUndercut", "hair_colour": "green", "skin": "brown", "facial_hair": "goatee", "glasses": "none",
        "nose": "mediumRound",
    }),
    "<felix>": ("micah", {
        "hair": "dannyPhantom", "hair_colour": "red", "skin": "light", "facial_hair": "none", "glasses": "square",
        "earrings": "none", "nose": "curve",
    }),
    "<nora>": ("miniavs", {
        "hair": "ponyTail", "hair_colour": "purple", "skin": "tan", "facial_hair": "none", "glasses": "none",
        "head": "normal",
    }),
    "<omar>": ("personas", {
        "hair": "curlyHighTop", "hair_colour": "black", "skin": "dark", "facial_hair": "walrus", "glasses": "none",
        "nose": "mediumRound",
    }),
    "<rivet>": ("miniavs", {
        "hair": "elvis", "hair_colour": "blue", "skin": "light", "facial_hair": "none", "glasses": "normal",
        "head": "normal",
    }),
}  # fmt: skip


def sitter(concept: DemoConcept) -> tuple[Style, Genes]:
    """Raises ValueError for a person that the base has seen."""
    package, identity = SITTERS[concept.name]
    style = STYLES[package]
    if not is_held_out(style, identity):
        raise ValueError(f"{concept.name}: expected a person that is held out from the base, got {identity}.")
    return style, identity


def draw(concept: DemoConcept, seed: int, renderer: Path, work: Path) -> None:
    """Pictures and captions of one of them, in the place of those that are there."""
    scenes = portraits(*sitter(concept), COUNT, seed, VARYING_ALONE)
    records = [scene.record(f"{number:02d}.png") for number, scene in enumerate(scenes)]
    write_records(records, work / "scenes.jsonl")
    render(work / "scenes.jsonl", work, renderer)
    folder = PICTURES / concept.folder
    folder.mkdir(parents=True, exist_ok=True)
    for record in records:
        with Image.open(work / record["file"]) as picture:
            few = picture.convert("RGB").quantize(COLOURS, dither=Image.Dither.NONE)
        few.save(folder / record["file"], optimize=True)
        (folder / record["file"]).with_suffix(".txt").write_text(record["caption"] + "\n", encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--renderer", type=Path, required=True, help="where the npm packages are kept")
    options = parser.parse_args()
    renderer = prepare_renderer(options.renderer)
    for number, concept in enumerate(CONCEPTS):
        with tempfile.TemporaryDirectory() as work:
            draw(concept, number, renderer, Path(work))


if __name__ == "__main__":
    main()
