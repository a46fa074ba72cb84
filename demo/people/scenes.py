"""Scenes: who and what is in a picture, where, on which ground, and the caption.

A scene's record is one line of JSON: it is what the renderer draws, and what a reader of genes learns from.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from demo.people import objects, styles
from demo.people.captions import ALONE, TOGETHER, ground_words, person_words, with_article
from demo.people.genes import Person, Style, draw_identity, draw_look, is_held_out, make_person

HEIGHT = 128
GROUNDS = {
    "white": "ffffff", "blue": "96befa", "green": "a5e1a0", "yellow": "fae88c", "pink": "fab9d7",
    "orange": "fac8a0", "purple": "cdb9f0", "gray": "c8ccd2",
}  # fmt: skip
Record = dict[str, Any]


@dataclass
class Scene:
    """A picture in the making; parts are drawn in their order, so that later ones cover earlier ones."""

    width: int
    ground: str
    caption: str
    parts: list[Record]

    def record(self, file: str) -> Record:
        ground = {"ground": self.ground, "ground_colour": f"#{GROUNDS[self.ground]}"}
        return {
            "file": file, "caption": self.caption, "width": self.width, "height": HEIGHT, **ground,
            "parts": self.parts,
        }  # fmt: skip


@dataclass(frozen=True)
class Pool:
    """Whom and what scenes may show: training's, or what is held out from it."""

    styles: tuple[Style, ...]
    objects: tuple[str, ...]
    held_out: bool

    def style(self, rng: np.random.RandomState) -> Style:
        share = np.asarray([style.weight or 1.0 for style in self.styles])
        return self.styles[int(rng.choice(len(self.styles), p=share / share.sum()))]

    def person(self, rng: np.random.RandomState, style: Style) -> Person:
        identity = draw_identity(style, rng)
        while style.weight and is_held_out(style, identity) != self.held_out:
            identity = draw_identity(style, rng)
        return make_person(style, identity, draw_look(style, rng))


TRAINING = Pool(styles.TRAINED, objects.TRAINED, held_out=False)
UNSEEN_PEOPLE = Pool(styles.TRAINED, objects.HELD_OUT, held_out=True)
UNSEEN_STYLES = Pool(styles.HELD_OUT, objects.HELD_OUT, held_out=True)
POOLS = {"training": TRAINING, "unseen_people": UNSEEN_PEOPLE, "unseen_styles": UNSEEN_STYLES}


def person_part(person: Person, x: float, size: float) -> Record:
    """A figure of `size`, standing on the lower edge, its middle at `x`."""
    place = {"x": round(x - size / 2, 2), "y": round(HEIGHT - size, 2), "size": round(size, 2)}
    genes = {"genes": person.genes, "options": person.options()}
    return {"kind": "person", "style": person.style.package, **genes, **place}


def icon_part(word: str, icon_set: str, x: float, y: float, size: float) -> Record:
    place = {"x": round(x - size / 2, 2), "y": round(y - size / 2, 2), "size": round(size, 2)}
    return {"kind": "icon", "word": word, "set": icon_set, "name": objects.ICONS[word], **place}


def _pick(rng: np.random.RandomState, options: tuple[str, ...]) -> str:
    return options[rng.randint(len(options))]


def _ground(rng: np.random.RandomState) -> tuple[str, str]:
    """A ground and its words, which one caption in ten leaves out."""
    ground = _pick(rng, tuple(GROUNDS))
    return ground, ground_words(ground) if rng.rand() < 0.9 else ""


def one_person(pool: Pool, rng: np.random.RandomState) -> Scene:
    person = pool.person(rng, pool.style(rng))
    ground, on_ground = _ground(rng)
    words = person_words(person, rng, ALONE, style=rng.rand() < 0.8)
    width, side = (128, "") if rng.rand() < 0.85 else (160, _pick(rng, ("left", "right")))
    middle = {"": width / 2, "left": 52.0, "right": width - 52.0}[side]
    part = person_part(person, middle + rng.uniform(-5, 5), rng.uniform(108, 127))
    return Scene(width, ground, words + (f" on the {side}" if side else "") + on_ground, [part])


def one_object(pool: Pool, rng: np.random.RandomState) -> Scene:
    word, icon_set = _pick(rng, pool.objects), _pick(rng, tuple(objects.ICON_SETS))
    ground, on_ground = _ground(rng)
    style = f"{objects.ICON_SETS[icon_set]} " if rng.rand() < 0.6 else ""
    centre = 64 + rng.uniform(-6, 6), 64 + rng.uniform(-6, 6)
    part = icon_part(word, icon_set, *centre, size=rng.uniform(76, 108))
    return Scene(128, ground, with_article(style + word) + on_ground, [part])


def person_with_object(pool: Pool, rng: np.random.RandomState) -> Scene:
    """Beside the person in a wide picture; before the person, over a shoulder's clothes, in a square one."""
    person = pool.person(rng, pool.style(rng))
    word, icon_set = _pick(rng, pool.objects), _pick(rng, tuple(objects.ICON_SETS))
    ground, on_ground = _ground(rng)
    words = person_words(person, rng, ALONE, style=rng.rand() < 0.8)
    side = rng.choice([-1, 1])
    if rng.rand() < 0.6:
        width, size, between = 160, rng.uniform(46, 60), "beside"
        middle, icon_x = width / 2 - side * 24, width / 2 + side * 52
    else:
        width, size, between = 128, rng.uniform(40, 50), "behind"
        middle, icon_x = width / 2 - side * 6, width / 2 + side * 38
    parts = [
        person_part(person, middle + rng.uniform(-3, 3), rng.uniform(100, 118)),
        icon_part(word, icon_set, icon_x + rng.uniform(-3, 3), HEIGHT - size * 0.62, size),
    ]
    return Scene(width, ground, f"{words} {between} {with_article(word)}{on_ground}", parts)


def two_people(pool: Pool, rng: np.random.RandomState) -> Scene:
    """Side by side, or one before the other; usually of one style."""
    style = pool.style(rng)
    left = pool.person(rng, style)
    right = pool.person(rng, style if rng.rand() < 0.8 else pool.style(rng))
    width = int(rng.choice([128, 160, 192], p=[0.15, 0.5, 0.35]))
    size = rng.uniform(0.62, 0.74) * min(width, 160)
    # Closer than they are wide, one of them covers a part of the other.
    reach = width * (rng.uniform(0.22, 0.26) if rng.rand() < 0.7 else rng.uniform(0.15, 0.19))
    parts = [
        person_part(person, width / 2 + side * reach, size * rng.uniform(0.94, 1.06))
        for side, person in ((-1, left), (1, right))
    ]
    ground, on_ground = _ground(rng)
    named = rng.rand() < 0.8
    one, other = (person_words(person, rng, TOGETHER, style=named) for person in (left, right))
    words = f"{one} on the left and {other} on the right" if rng.rand() < 0.7 else f"{one} beside {other}"
    return Scene(width, ground, words + on_ground, parts if rng.rand() < 0.5 else parts[::-1])


def three_people(pool: Pool, rng: np.random.RandomState) -> Scene:
    """The caption says only what fits: the style and the ground."""
    style = pool.style(rng)
    people = [pool.person(rng, style) for _ in range(3)]
    parts = [
        person_part(person, 96 + offset + rng.uniform(-3, 3), rng.uniform(72, 84))
        for offset, person in zip((-62, 0, 62), people, strict=True)
    ]
    ground, on_ground = _ground(rng)
    return Scene(192, ground, f"three {style.word} people side by side{on_ground}", parts)


KINDS: tuple[tuple[Callable[[Pool, np.random.RandomState], Scene], float], ...] = (
    (one_person, 0.46),
    (one_object, 0.11),
    (person_with_object, 0.12),
    (two_people, 0.28),
    (three_people, 0.03),
)


def draw_scene(pool: Pool, seed: int, number: int) -> Scene:
    """Scene `number` of a corpus; it does not depend on how many there are."""
    rng = np.random.RandomState([seed, number])
    kind = KINDS[int(rng.choice(len(KINDS), p=[share for _, share in KINDS]))][0]
    return kind(pool, rng)
