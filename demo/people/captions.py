"""Plain English for what a scene shows. A caption may leave genes out; what it says is true."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from demo.people.genes import Person


@dataclass(frozen=True)
class Detail:
    """How likely a caption says each thing that can be said."""

    expression: float = 0.85
    hair: float = 0.95
    skin: float = 0.6
    extras: float = 0.95
    eyes: float = 0.6
    clothes: float = 0.85
    who: float = 0.85


ALONE = Detail()
# Two people have to fit into 77 tokens.
TOGETHER = Detail(expression=0.4, skin=0.3, eyes=0.0, clothes=0.4)
EVERYTHING = Detail(1, 1, 1, 1, 1, 1, 1)
EXTRAS = ("facial_hair", "glasses", "earrings", "features", "blushes")


def with_article(words: str) -> str:
    return f"an {words}" if words[0] in "aeiou" else f"a {words}"


def joined(parts: list[str]) -> str:
    return " and ".join([", ".join(parts[:-1]), parts[-1]]) if len(parts) > 1 else "".join(parts)


def who_words(person: Person) -> str:
    """Man or woman by hair and beard alone: a drawing says no more."""
    hair = person.value("hair")
    beard = person.value("facial_hair")
    if beard and beard.words:
        return "man"
    return hair.who if hair else "person"


def words_of(person: Person, gene: str) -> str:
    value = person.value(gene)
    return value.words if value else ""


def hair_words(person: Person) -> str:
    return words_of(person, "hair").format(person.genes.get("hair_colour", ""))


def _features(person: Person, rng: np.random.RandomState, detail: Detail) -> list[str]:
    features = [hair_words(person)] if rng.rand() < detail.hair else []
    if "skin" in person.genes and rng.rand() < detail.skin:
        features.append(f"{person.genes['skin']} skin")
    features += [words_of(person, gene) for gene in EXTRAS if rng.rand() < detail.extras]
    if words_of(person, "glasses") != "sunglasses" and rng.rand() < detail.eyes:
        features.append(words_of(person, "eyes"))
    return [feature for feature in features if feature]


def person_words(person: Person, rng: np.random.RandomState, detail: Detail, style: bool = False) -> str:
    """A person as "a smiling toonhead woman with red hair and glasses in a green shirt"."""
    adjectives = [words_of(person, "expression")] if rng.rand() < detail.expression else []
    adjectives += [person.style.word] if style else []
    noun = who_words(person) if rng.rand() < detail.who else "person"
    words = with_article(" ".join(word for word in (*adjectives, noun) if word))
    features = _features(person, rng, detail)
    if features:
        words += f" with {joined(features)}"
    colour, garment = person.genes.get("clothes_colour"), words_of(person, "clothes") or "shirt"
    if colour and rng.rand() < detail.clothes:
        words += " in " + with_article(f"{colour} {garment}")
    return words


def ground_words(ground: str) -> str:
    return f" on {with_article(ground)} background"
