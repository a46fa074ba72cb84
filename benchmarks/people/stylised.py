"""Does a person stay who they are in another style, on a ground that was asked for? After `import_comfyui`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from benchmarks.boxes_study.results import titled_rows
from benchmarks.identity_study.results import rounded
from benchmarks.identity_study.sample import Merge
from benchmarks.identity_study.train import Training
from benchmarks.identity_study.work import Cell, Folders, PromptCase, WorkerPool, kept_pictures
from benchmarks.people import cast
from benchmarks.people.arms import SAMPLING, default_recipe
from benchmarks.people.boxes import people
from blocklora_core.concept.prompt_lines import PLACEHOLDER
from blocklora_core.evaluation import bootstrap
from demo.people.captions import Detail, ground_words
from demo.people.reader.model import GeneReader
from demo.people.reader.questions import GROUND, STYLE
from demo.people.reader.reading import Identity, Reading
from demo.people.reader.stored import stored_reader
from demo.people.scenes import GROUNDS
from demo.people.styles import STYLES

MICAH, TOON = "micah", "toon-head"
"""Styles that the base knows by words of their own, as the reader of genes tells no others."""
SEEDS = 6
SPARING = Detail(expression=1, hair=0, skin=1, extras=0, eyes=0, clothes=0, who=1)
"""What captions of a style tell. Not hair, glasses and clothes, which each style has names of its own for: what a
caption names, the concept need not learn."""
WORDY_MICAH = cast.drawing_style("<devmicah>", MICAH, "adventurer", 306)
SPARE_MICAH = cast.drawing_style("<devmicahspare>", MICAH, "adventurer", 307, SPARING)
SPARE_TOON = cast.drawing_style("<devtoonspare>", TOON, "adventurer", 308, SPARING)
TAUGHT = (WORDY_MICAH, SPARE_MICAH, SPARE_TOON)
FUSED = Merge("fused")
COLOURS = ("hair_colour", "skin")
"""What a person shows in every style."""


@dataclass(frozen=True)
class Way:
    """style: what prompts say for it; empty for the person's own. whole: everybody is merged, else one person and the
    style."""

    title: str
    style: str
    taught: cast.Drawn = SPARE_MICAH
    package: str = MICAH
    merge: Merge = FUSED
    whole: bool = True


WAYS: Mapping[str, Way] = {
    "own": Way("All merged, asked for in their own style", ""),
    "word": Way("All merged, the base's word for the style", STYLES[MICAH].word),
    "wordy": Way("One person and the style, its captions telling all", WORDY_MICAH.name, WORDY_MICAH, whole=False),
    "pair": Way("One person and the style, fused", SPARE_MICAH.name, whole=False),
    "fused": Way("All merged, fused", SPARE_MICAH.name),
    "sum": Way("All merged, summed", SPARE_MICAH.name, merge=Merge("per_row")),
    "toon word": Way("Second style, the base's word for it", STYLES[TOON].word, SPARE_TOON, TOON),
    "toon": Way("Second style, fused", SPARE_TOON.name, SPARE_TOON, TOON),
}


def cells(way: Way) -> Iterator[Cell]:
    """One for each person of another style."""
    trained = [Training(default_recipe(), one, 0, slot) for slot, one in enumerate((*people(), way.taught))]
    for person in trained[:-1]:
        if _identity(person.member).style != way.package:
            stack = tuple(trained) if way.whole else (person, trained[-1])
            yield Cell(stack, way.merge, tuple(_cases(person, way)), SAMPLING)


def _cases(person: Training, way: Way) -> Iterator[PromptCase]:
    own = STYLES[_identity(person.member).style].word
    for at, prompt in enumerate(person.member.prompts[:SEEDS]):
        asked = prompt.replace(f" {own} ", f" {way.style or own} ", 1).replace(PLACEHOLDER, person.member.name)
        yield PromptCase(person.member, asked, (100 * person.slot + at,))


def _ground(prompt: str) -> str:
    return next(ground for ground in GROUNDS if prompt.endswith(ground_words(ground)))


def _identity(member: Any) -> Identity:
    found: Identity = member.identity
    return found


def read(reader: GeneReader, cell: Cell, folders: Folders, package: str) -> list[dict[str, float]]:
    """Of each picture: whether style and ground are those asked for, the share of the person's colours, and all."""
    found = []
    for case, pictures in cell.pictures(folders):
        genes = _identity(case.member).genes
        asked = {gene: genes[gene] for gene in COLOURS if gene in genes} | {GROUND: _ground(case.prompt)}
        right = Reading.of(reader, pictures.movedim(-1, 1)).right(Identity(package, asked))
        hits = {gene: float(value[0]) for gene, value in right.items()}
        colours = torch.tensor([hits[gene] for gene in COLOURS if gene in hits]).mean().item()
        found.append({
            "style": hits[STYLE], "colours": colours, "ground": hits[GROUND], "all": float(min(hits.values()) == 1)
        })  # fmt: skip
    return found


def measure(pool: WorkerPool, minutes: float, out: Path) -> dict[str, Any]:
    """Every way; nothing until all pictures are there. Each person's first is shown in people_styles.jpg."""
    asked = {name: list(cells(way)) for name, way in WAYS.items()}
    every = [cell for found in asked.values() for cell in found]
    pool.work([training for cell in every for training in cell.trained], every, minutes * 60)
    if not all(cell.path(pool.folders).is_file() for cell in every):
        return {}
    shown = [
        (WAYS[name].title, [kept_pictures(one.path(pool.folders))[:1] for one in found])
        for name, found in asked.items()
    ]
    titled_rows(shown).save(out / "people_styles.jpg", quality=90)
    reader = stored_reader()
    return {"ways": {name: _figures(reader, found, pool.folders, WAYS[name]) for name, found in asked.items()}}


def _figures(reader: GeneReader, found: Sequence[Cell], folders: Folders, way: Way) -> dict[str, Any]:
    scores = [read(reader, cell, folders, way.package) for cell in found]
    metrics = {
        metric: rounded(bootstrap([[one[metric] for one in pictures] for pictures in scores]))
        for metric in scores[0][0]
    }
    return {"title": way.title, **metrics}
