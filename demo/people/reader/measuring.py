"""What the base draws of what it was asked, as the reader sees it: `python run.py bench pretrain measure`.

Prompts are captions of held-out people. A figure is right when its style and what marks the person (hair and its
colour, beard, glasses), as far as the prompt names it, are all read as asked. Ends in one JSON object.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from PIL import Image

from demo.people.captions import EVERYTHING, TOGETHER, ground_words, person_words, words_of
from demo.people.genes import Person
from demo.people.reader.figures import SIDE
from demo.people.reader.model import GeneReader
from demo.people.reader.questions import STYLE
from demo.people.reader.reading import Identity, Reading
from demo.people.reader.stored import stored_reader
from demo.people.recipe.autoencoder import to_unit
from demo.people.recipe.latents import Tokenizer
from demo.people.recipe.layout import stored_autoencoder, stored_unet
from demo.people.recipe.samples import pictures, sample
from demo.people.scenes import GROUNDS, UNSEEN_PEOPLE
from demo.text_encoder import FastTextEncoder, text_encoder_state

MARKS = ("hair", "hair_colour", "facial_hair", "glasses")
TOLD = (*MARKS, "skin", "expression", "clothes_colour", "ground")
PAIR = replace(TOGETHER, expression=0, hair=1, skin=0, extras=1, clothes=0, who=1)
PAIR_WIDTH, PAIR_SIZE, PAIR_REACH = 192, 112, 46
"""A picture of two: how wide it is, how large a figure is cut out, how far each middle is from the picture's."""
BATCH = 16


@dataclass(frozen=True)
class Asked:
    """A prompt, and what it says of each person, from left to right."""

    prompt: str
    people: tuple[Identity, ...]


def said(person: Person, ground: str) -> Identity:
    """The genes that a caption of every detail names."""
    genes = {gene: name for gene, name in person.genes.items() if not person.value(gene) or words_of(person, gene)}
    return Identity(person.style.package, {**genes, "ground": ground})


def ask_one(rng: np.random.RandomState) -> Asked:
    person = UNSEEN_PEOPLE.person(rng, UNSEEN_PEOPLE.style(rng))
    ground = str(rng.choice(list(GROUNDS)))
    return Asked(person_words(person, rng, EVERYTHING, style=True) + ground_words(ground), (said(person, ground),))


def ask_two(rng: np.random.RandomState) -> Asked:
    style, ground = UNSEEN_PEOPLE.style(rng), str(rng.choice(list(GROUNDS)))
    people = [UNSEEN_PEOPLE.person(rng, style) for _ in range(2)]
    left, right = (person_words(person, rng, PAIR, style=True) for person in people)
    words = f"{left} on the left and {right} on the right"
    return Asked(words + ground_words(ground), tuple(said(person, ground) for person in people))


def _middle(number: int) -> float:
    return PAIR_WIDTH / 2 + (2 * number - 1) * PAIR_REACH


def cut(picture: Image.Image, number: int) -> Image.Image:
    """The left (0) or right (1) figure of a picture of two."""
    left, top = round(_middle(number) - PAIR_SIZE / 2), picture.height - PAIR_SIZE
    canvas = Image.new("RGB", (PAIR_SIZE, PAIR_SIZE), picture.getpixel((0 if number == 0 else picture.width - 1, 0)))
    canvas.paste(picture, (-left, -top))
    return canvas.resize((SIDE, SIDE), Image.Resampling.BILINEAR)


def right(reader: GeneReader, shown: Sequence[Image.Image], asked: Sequence[Identity]) -> list[dict[str, bool]]:
    """Gene -> whether it is read as asked, for each figure."""
    reading = Reading.of(reader, to_unit([np.asarray(picture) for picture in shown]))
    every = [reading.right(identity) for identity in asked]
    return [{gene: bool(hits[number]) for gene, hits in found.items()} for number, found in enumerate(every)]


def is_right(found: Mapping[str, bool]) -> bool:
    return all(found.get(gene, True) for gene in (STYLE, *MARKS))


def shares(found: Sequence[Mapping[str, bool]]) -> dict[str, float]:
    """Gene -> share of the figures of which it was asked that are right."""
    hits = {gene: [one[gene] for one in found if gene in one] for gene in (STYLE, *TOLD)}
    return {gene: round(sum(told) / len(told), 3) for gene, told in hits.items() if told}


Paint = Callable[[Sequence[str], int, int], list[Image.Image]]
"""Prompts, width in pixels, seed -> a picture for each."""


class Painter:
    """The base, from its weights."""

    def __init__(self, steps: int, guidance: float):
        self.unet, self.vae = stored_unet().eval(), stored_autoencoder().eval()
        self.text, self.tokenize = FastTextEncoder(text_encoder_state()), Tokenizer()
        self.steps, self.guidance = steps, guidance

    def __call__(self, prompts: Sequence[str], width: int, seed: int) -> list[Image.Image]:
        ids, empty = torch.tensor([self.tokenize(prompt) for prompt in prompts]), torch.tensor(self.tokenize(""))
        size = (16, width // 8)
        return pictures(self.vae, sample(self.unet, self.text, ids, empty, size, self.steps, self.guidance, seed))


def _painted(paint: Paint, asked: Sequence[Asked], width: int) -> list[Image.Image]:
    starts = range(0, len(asked), BATCH)
    parts = [paint([one.prompt for one in asked[start : start + BATCH]], width, start) for start in starts]
    return [picture for part in parts for picture in part]


def measure(paint: Paint, reader: GeneReader, singles: int, pairs: int, seed: int = 11) -> dict[str, dict[str, float]]:
    """What share of so many prompts of one person, and of two, is right."""
    alone = [ask_one(np.random.RandomState([seed, number])) for number in range(singles)]
    together = [ask_two(np.random.RandomState([seed, 1, number])) for number in range(pairs)]
    shown, both = _painted(paint, alone, SIDE), _painted(paint, together, PAIR_WIDTH)
    ones = right(reader, shown, [asked.people[0] for asked in alone])
    sides = [right(reader, [cut(p, n) for p in both], [asked.people[n] for asked in together]) for n in (0, 1)]
    return {
        "one": {"right": round(sum(map(is_right, ones)) / singles, 3), **shares(ones)},
        "two": {
            "both_right": round(sum(is_right(a) and is_right(b) for a, b in zip(*sides, strict=True)) / pairs, 3),
            **shares([*sides[0], *sides[1]]),
        },
    }


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--singles", type=int, default=64)
    parser.add_argument("--pairs", type=int, default=32)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--guidance", type=float, default=4.0)
    options = parser.parse_args(arguments)
    told = measure(Painter(options.steps, options.guidance), stored_reader(), options.singles, options.pairs)
    print(json.dumps({"singles": options.singles, "pairs": options.pairs, **told}))
