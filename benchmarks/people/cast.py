"""Whom `bench people` teaches: people, things, animals and styles that the demo's base never saw, drawn from genes.

The development cast chooses settings, the test cast judges them; no identity is in both. Of each concept every picture
differs in what does not make it: expression, eyes, clothes, ground, place and size of a person. A prompt is the caption
of a picture that was held out, with the concept's name in the class word's place.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import chain
from pathlib import Path
from typing import Protocol

import numpy as np
from PIL import Image

from blocklora_core.concept.prompt_lines import PLACEHOLDER
from demo.cast import Picture
from demo.people import objects, styles
from demo.people.captions import EVERYTHING, Detail, ground_words, who_words, with_article
from demo.people.corpus import render, write_records
from demo.people.genes import Genes, Style, draw_identity, make_person
from demo.people.portraits import portraits, unseen_identities
from demo.people.reader.reading import Identity
from demo.people.scenes import GROUNDS, Scene, icon_part
from demo.people.sitters import SITTERS

TRAINING_PICTURES, PROMPTS, HELD_SEED = 12, 20, 50_000
DEVELOPMENT_SEED, TEST_SEED, CROWD_SEED = 101, 202, 303
SHOWN = Detail(expression=1, hair=0, skin=0, extras=0, eyes=1, clothes=1, who=1)
"""What captions of a person tell: nothing that makes the person."""


class Scenes(Protocol):
    """A number of pictures and a seed -> what is drawn."""

    def __call__(self, count: int, seed: int) -> list[Scene]: ...


@dataclass(frozen=True)
class OfPerson:
    style: Style
    genes: Genes

    def __call__(self, count: int, seed: int) -> list[Scene]:
        return portraits(self.style, self.genes, count, seed, SHOWN)


@dataclass(frozen=True)
class OfIcon:
    """On all grounds, in places and sizes of its own."""

    word: str
    icon_set: str
    class_word: str

    def __call__(self, count: int, seed: int) -> list[Scene]:
        rng = np.random.RandomState(seed)
        grounds = rng.permutation(list(GROUNDS))
        return [self._scene(str(grounds[number % len(grounds)]), rng) for number in range(count)]

    def _scene(self, ground: str, rng: np.random.RandomState) -> Scene:
        part = icon_part(self.word, self.icon_set, *(64 + rng.uniform(-8, 8, 2)), size=rng.uniform(72, 112))
        caption = with_article(f"{objects.ICON_SETS[self.icon_set]} {self.class_word}") + ground_words(ground)
        return Scene(128, ground, caption, [part])


@dataclass(frozen=True)
class OfStyle:
    """Another person in every picture, told in words."""

    style: Style
    class_word: str
    told: Detail = EVERYTHING

    def __call__(self, count: int, seed: int) -> list[Scene]:
        rng = np.random.RandomState(seed)
        return [self._scene(seed * 1000 + number, rng) for number in range(count)]

    def _scene(self, seed: int, rng: np.random.RandomState) -> Scene:
        (scene,) = portraits(self.style, draw_identity(self.style, rng), 1, seed, self.told)
        return replace(scene, caption=scene.caption.replace(f" {self.style.word} ", f" {self.class_word} ", 1))


# Compared by identity: genes have no hash.
@dataclass(frozen=True, eq=False)
class Drawn:
    """A concept. identity: a person's genes that can be seen."""

    name: str
    class_word: str
    scenes: Scenes
    seed: int
    identity: Identity | None = None

    @property
    def folder(self) -> str:
        return self.name.strip("<>")

    def sets(self) -> dict[str, list[Scene]]:
        """What it is trained on, and what is held out."""
        return {
            "training": self.scenes(TRAINING_PICTURES, self.seed), "held": self.scenes(PROMPTS, self.seed + HELD_SEED)
        }  # fmt: skip

    @cached_property
    def prompts(self) -> Sequence[str]:
        held = self.sets()["held"]
        return [re.sub(rf"\b{self.class_word}\b", PLACEHOLDER, scene.caption, count=1) for scene in held]

    def draw(self, art: Path, renderer: Path) -> None:
        """Every picture, once."""
        for name, scenes in self.sets().items():
            folder = art / self.folder / name
            if not (folder / "done").is_file():
                write_records([s.record(f"{at:02d}.png") for at, s in enumerate(scenes)], folder / "scenes.jsonl")
                render(folder / "scenes.jsonl", folder, renderer)
                (folder / "done").touch()

    def training(self, art: Path) -> list[Picture]:
        pictures = _pictures(art / self.folder / "training")
        return list(zip(pictures, (scene.caption for scene in self.sets()["training"]), strict=True))

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
    return Drawn(name, who_words(shown), OfPerson(style, genes), seed, Identity(style.package, shown.genes))


def icon(name: str, word: str, icon_set: str, class_word: str, seed: int) -> Drawn:
    """An object or animal that the base never saw."""
    return Drawn(name, class_word, OfIcon(word, icon_set, class_word), seed)


def drawing_style(name: str, package: str, class_word: str, seed: int, told: Detail = EVERYTHING) -> Drawn:
    """A style of drawing. told: what its captions say of the people in it."""
    return Drawn(name, class_word, OfStyle(styles.STYLES[package], class_word, told), seed)


def _people(prefix: str, places: range, seed: int) -> list[Drawn]:
    found = unseen_identities(places.stop, seed)
    return [person(f"<{prefix}{at}>", *found[at], seed=seed * 100 + at) for at in places]


def _looks(style: str, genes: Genes) -> tuple[str, ...]:
    """No two people of one cast have the same."""
    return style, *(genes.get(gene, "") for gene in ("hair", "hair_colour", "skin"))


def development() -> tuple[Drawn, ...]:
    """Ten people, two things, two animals and a style."""
    return (
        *_people("dev", range(10), DEVELOPMENT_SEED),
        icon("<devcrown>", "crown", "noto", "hat", 301),
        icon("<devbicycle>", "bicycle", "twemoji", "car", 302),
        icon("<devsnail>", "snail", "twemoji", "turtle", 303),
        icon("<devkoala>", "koala", "noto", "bear", 304),
        drawing_style("<devstyle>", "big-smile", "adventurer", 305),
    )


def crowd() -> tuple[Drawn, ...]:
    """A hundred people that are in no other cast, for how many fit in one merge."""
    others = [one.identity for one in chain(development(), *test()) if one.identity]
    known = {_looks(one.style, one.genes) for one in others} | {_looks(*sitter) for sitter in SITTERS.values()}
    drawn = _people("crowd", range(120), CROWD_SEED)
    found = [one for one in drawn if one.identity and _looks(one.identity.style, one.identity.genes) not in known]
    return tuple(found[:100])


def test() -> tuple[tuple[Drawn, ...], ...]:
    """Two groups, which are merged apart: each of twelve people, an animal, two things and a style, so that every slot
    of the default scheme is taken."""
    return (
        (
            *_people("test", range(12), TEST_SEED),
            icon("<testpenguin>", "penguin", "noto", "owl", 401),
            icon("<testtulip>", "tulip", "twemoji", "sunflower", 402),
            icon("<testumbrella>", "umbrella", "noto", "balloon", 403),
            drawing_style("<teststyle0>", "lorelei", "adventurer", 404),
        ),
        (
            *_people("test", range(12, 24), TEST_SEED),
            icon("<testhedgehog>", "hedgehog", "twemoji", "mouse", 405),
            icon("<testwatermelon>", "watermelon", "noto", "strawberry", 406),
            icon("<testboat>", "boat", "twemoji", "train", 407),
            drawing_style("<teststyle1>", "notionists", "peeps", 408),
        ),
    )
