"""Whom `bench people` teaches: people, things, animals and styles that the demo's base never saw, drawn from genes.

The development cast chooses settings, the test cast judges them; no identity is in both. Of each concept every picture
differs in what does not make it: expression, eyes, clothes, ground, place and size of a person. A prompt is the caption
of a picture that was held out, with the concept's name in the class word's place.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from benchmarks.identity_study.subject import Picture
from blocklora_core.concept.prompt_lines import PLACEHOLDER
from demo.people import objects, styles
from demo.people.captions import EVERYTHING, Detail, ground_words, who_words, with_article
from demo.people.corpus import render, write_records
from demo.people.genes import Genes, Style, draw_identity, make_person
from demo.people.portraits import portraits, unseen_identities
from demo.people.reader.reading import Identity
from demo.people.scenes import GROUNDS, Scene, icon_part

TRAINING_PICTURES, PROMPTS = 12, 20
DEVELOPMENT_SEED, TEST_SEED = 101, 202
SHOWN = Detail(expression=1, hair=0, skin=0, extras=0, eyes=1, clothes=1, who=1)
"""What captions of a person tell: nothing that makes the person."""


@dataclass(frozen=True)
class Drawn:
    """A concept. scenes: how many and a seed -> what is drawn. identity: a person's genes. folder: its pictures'."""

    name: str
    class_word: str
    scenes: Callable[[int, int], list[Scene]]
    seed: int
    identity: Identity | None = None

    @property
    def folder(self) -> str:
        return self.name.strip("<>")

    def _sets(self) -> Iterator[tuple[str, list[Scene]]]:
        yield "training", self.scenes(TRAINING_PICTURES, self.seed)
        yield "held", self.scenes(PROMPTS, self.seed + 50_000)

    @property
    def prompts(self) -> Sequence[str]:
        held = dict(self._sets())["held"]
        return [re.sub(rf"\b{self.class_word}\b", PLACEHOLDER, scene.caption, count=1) for scene in held]

    def draw(self, art: Path, renderer: Path) -> None:
        """Every picture, once."""
        for name, scenes in self._sets():
            folder = art / self.folder / name
            if not (folder / "done").is_file():
                write_records([s.record(f"{at:02d}.png") for at, s in enumerate(scenes)], folder / "scenes.jsonl")
                render(folder / "scenes.jsonl", folder, renderer)
                (folder / "done").touch()

    def training(self, art: Path) -> list[Picture]:
        scenes = self.scenes(TRAINING_PICTURES, self.seed)
        return list(zip(_pictures(art / self.folder / "training"), (one.caption for one in scenes), strict=True))

    def held_out(self, art: Path) -> list[Image.Image]:
        return _pictures(art / self.folder / "held")


def _pictures(folder: Path) -> list[Image.Image]:
    found = []
    for path in sorted(folder.glob("*.png")):
        with Image.open(path) as picture:
            found.append(picture.convert("RGB"))
    return found


def person(name: str, style: Style, genes: Genes, seed: int) -> Drawn:
    shown = make_person(style, genes, {})
    word = who_words(shown)
    return Drawn(
        name, word, lambda count, lot: portraits(style, genes, count, lot, SHOWN), seed,
        Identity(style.package, shown.genes),
    )  # fmt: skip


def icon(name: str, word: str, icon_set: str, class_word: str, seed: int) -> Drawn:
    """An object or animal that the base never saw, on all grounds, in places and sizes of its own."""

    def scenes(count: int, lot: int) -> list[Scene]:
        rng = np.random.RandomState(lot)
        grounds = rng.permutation(list(GROUNDS))
        found = []
        for number in range(count):
            ground = str(grounds[number % len(grounds)])
            part = icon_part(word, icon_set, *(64 + rng.uniform(-8, 8, 2)), size=rng.uniform(72, 112))
            caption = with_article(f"{objects.ICON_SETS[icon_set]} {class_word}") + ground_words(ground)
            found.append(Scene(128, ground, caption, [part]))
        return found

    return Drawn(name, class_word, scenes, seed)


def drawing_style(name: str, style: Style, class_word: str, seed: int) -> Drawn:
    """A style of drawing that the base never saw: another person in every picture, told in words."""

    def scenes(count: int, lot: int) -> list[Scene]:
        rng = np.random.RandomState(lot)
        found = []
        for number in range(count):
            (scene,) = portraits(style, draw_identity(style, rng), 1, lot * 1000 + number, EVERYTHING)
            caption = scene.caption.replace(f" {style.word} ", f" {class_word} ", 1)
            found.append(Scene(scene.width, scene.ground, caption, scene.parts))
        return found

    return Drawn(name, class_word, scenes, seed)


def _people(prefix: str, places: range, seed: int) -> list[Drawn]:
    found = unseen_identities(places.stop, seed)
    return [person(f"<{prefix}{at}>", *found[at], seed=seed * 100 + at) for at in places]


def development() -> tuple[Drawn, ...]:
    """Ten people, two things, two animals and a style."""
    return (
        *_people("dev", range(10), DEVELOPMENT_SEED),
        icon("<devcrown>", "crown", "noto", "hat", 301),
        icon("<devbicycle>", "bicycle", "twemoji", "car", 302),
        icon("<devsnail>", "snail", "twemoji", "turtle", 303),
        icon("<devkoala>", "koala", "noto", "bear", 304),
        drawing_style("<devstyle>", styles.STYLES["big-smile"], "adventurer", 305),
    )


def test() -> tuple[tuple[Drawn, ...], ...]:
    """Two groups, which are merged apart: each of twelve people, an animal, two things and a style, so that every slot
    of the default scheme is taken."""
    return (
        (
            *_people("test", range(12), TEST_SEED),
            icon("<testpenguin>", "penguin", "noto", "owl", 401),
            icon("<testtulip>", "tulip", "twemoji", "sunflower", 402),
            icon("<testumbrella>", "umbrella", "noto", "balloon", 403),
            drawing_style("<teststyle0>", styles.STYLES["lorelei"], "adventurer", 404),
        ),
        (
            *_people("test", range(12, 24), TEST_SEED),
            icon("<testhedgehog>", "hedgehog", "twemoji", "mouse", 405),
            icon("<testwatermelon>", "watermelon", "noto", "strawberry", 406),
            icon("<testboat>", "boat", "twemoji", "train", 407),
            drawing_style("<teststyle1>", styles.STYLES["notionists"], "peeps", 408),
        ),
    )
