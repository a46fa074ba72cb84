"""What a drawn person is made of: genes, their values, the words for them and the drawing library's options."""

from __future__ import annotations

import zlib
from dataclasses import dataclass, field

import numpy as np

Options = dict[str, list[str] | int]

HAIR_COLOURS = {
    "black": "1f1a1c", "brown": "6b3f24", "blond": "e6c15a", "red": "c8371b", "gray": "a3a6ab",
    "pink": "f27fb2", "blue": "3f74e0", "green": "3fae5a", "purple": "7d4bc4",
}  # fmt: skip
SKINS = {"light": "f5cdb6", "tan": "dda577", "brown": "a5683f", "dark": "5f3a26"}
CLOTHES_COLOURS = {
    "red": "d8322f", "orange": "f58a2b", "yellow": "f4d03f", "green": "2f9e4f", "blue": "2f62d8",
    "purple": "8040c0", "pink": "f272b6", "white": "f2f2f2", "black": "262626", "gray": "8a8d91",
}  # fmt: skip
COLOURS = {"hair_colour": HAIR_COLOURS, "skin": SKINS, "clothes_colour": CLOTHES_COLOURS}
# Natural colours are drawn more often; every one occurs.
HAIR_COLOUR_WEIGHTS = (0.16, 0.16, 0.14, 0.14, 0.08, 0.08, 0.08, 0.08, 0.08)
HELD_OUT_SHARE = 8


@dataclass(frozen=True)
class Value:
    """One value of a gene: what a caption calls it ("" for not at all), and how it is drawn.

    Words of a hair hold the place of its colour as {}; who is the word for a person who wears it.
    """

    words: str
    options: Options = field(default_factory=dict)
    who: str = "man"
    weight: float = 1.0


Values = dict[str, Value]


@dataclass(frozen=True)
class Style:
    """One drawing style: `identity` genes make a person, `varying` ones differ between the person's pictures."""

    package: str
    word: str
    identity: dict[str, Values]
    varying: dict[str, Values]
    fixed: Options
    colours: dict[str, str]  # drawing option -> the gene that colours it
    weight: float = 0.0  # share of the corpus; 0 holds the style out


Genes = dict[str, str]


@dataclass(frozen=True)
class Person:
    style: Style
    genes: Genes

    def value(self, gene: str) -> Value | None:
        """The value of a drawn gene; None for a colour, or a gene that this person or style has not."""
        values = self.style.identity.get(gene) or self.style.varying.get(gene)
        return values[self.genes[gene]] if values and gene in self.genes else None

    def options(self) -> Options:
        """What the drawing library is told; every option has one value, so nothing is left to its lot."""
        drawn: Options = dict(self.style.fixed)
        for gene in (*self.style.varying, *self.style.identity):
            value = self.value(gene)
            drawn |= value.options if value else {}
        for option, gene in self.style.colours.items():
            drawn[option] = [COLOURS[gene][self.genes.get(gene, "black")]]
        return drawn


def has_colour(style: Style, gene: str) -> bool:
    return gene in style.colours.values()


def _draw(rng: np.random.RandomState, names: list[str], weights: list[float]) -> str:
    share = np.asarray(weights) / sum(weights)
    return names[int(rng.choice(len(names), p=share))]


def _draw_value(rng: np.random.RandomState, values: Values) -> str:
    return _draw(rng, list(values), [value.weight for value in values.values()])


def draw_identity(style: Style, rng: np.random.RandomState) -> Genes:
    """Genes that make a person; a beard only with hair that captions give to a man."""
    genes = {gene: _draw_value(rng, values) for gene, values in style.identity.items()}
    if style.identity["hair"][genes["hair"]].who == "woman" and "facial_hair" in genes:
        genes["facial_hair"] = "none"
    if has_colour(style, "hair_colour"):
        genes["hair_colour"] = _draw(rng, list(HAIR_COLOURS), list(HAIR_COLOUR_WEIGHTS))
    if has_colour(style, "skin"):
        genes["skin"] = _draw(rng, list(SKINS), [1.0] * len(SKINS))
    return genes


def draw_look(style: Style, rng: np.random.RandomState) -> Genes:
    """Genes that differ from picture to picture of one person."""
    genes = {gene: _draw_value(rng, values) for gene, values in style.varying.items()}
    if has_colour(style, "clothes_colour"):
        genes["clothes_colour"] = _draw(rng, list(CLOTHES_COLOURS), [1.0] * len(CLOTHES_COLOURS))
    return genes


def is_held_out(style: Style, identity: Genes) -> bool:
    """The rule that keeps one in eight combinations of hair, its colour and skin out of training, per style."""
    key = "|".join((style.package, *(identity.get(gene, "") for gene in ("hair", "hair_colour", "skin"))))
    return zlib.crc32(key.encode()) % HELD_OUT_SHARE == 0


def _shows_hair_colour(style: Style, identity: Genes) -> bool:
    parts = [style.identity[gene][identity[gene]] for gene in ("hair", "facial_hair") if gene in identity]
    return "{}" in parts[0].words or any(part.words and "black" not in part.words for part in parts[1:])


def make_person(style: Style, identity: Genes, look: Genes) -> Person:
    """Genes that cannot be seen are left out: eyes that a style draws as glasses, the hair's colour of a bald head."""
    taken = {option for gene in style.identity for option in style.identity[gene][identity[gene]].options}
    seen = {
        gene: name
        for gene, name in look.items()
        if gene not in style.varying or not taken & set(style.varying[gene][name].options)
    }
    genes = {**identity, **seen}
    if "hair_colour" in genes and not _shows_hair_colour(style, identity):
        del genes["hair_colour"]
    return Person(style, genes)
