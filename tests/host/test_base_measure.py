"""What the base draws of what it was asked: prompts that say what is read, figures cut where they stand, shares."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
import torch
from PIL import Image

from demo.people.captions import hair_words
from demo.people.genes import Person
from demo.people.reader import measuring
from demo.people.reader.figures import SIDE
from demo.people.reader.measuring import MARKS, PAIR_WIDTH, ask_one, ask_two, cut, is_right, measure, shares
from demo.people.reader.model import GeneReader
from demo.people.reader.questions import questions_of
from demo.people.reader.reading import Identity
from demo.people.recipe.latents import Tokenizer
from demo.people.styles import STYLES, TRAINED

READER = GeneReader(questions_of(TRAINED), widths=(8, 8, 8, 8)).eval()


def paint(prompts: Sequence[str], width: int, seed: int) -> list[Image.Image]:
    del seed
    return [Image.new("RGB", (width, 128), "white") for _ in prompts]


@pytest.mark.parametrize("number", range(40))
def test_a_prompt_says_what_is_read_and_fits(number: int) -> None:
    tokenize = Tokenizer()
    for asked in (ask_one(np.random.RandomState(number)), ask_two(np.random.RandomState(number))):
        assert len(tokenize.tokenizer.tokenize_with_weights(asked.prompt)) == 1
        for identity in asked.people:
            person = Person(STYLES[identity.style], identity.genes)
            assert identity.genes["ground"] in asked.prompt and person.style.word in asked.prompt
            assert hair_words(person) in asked.prompt
            for gene in MARKS[2:]:
                value = person.value(gene)
                assert value is None or (value.words and value.words in asked.prompt)


def test_figures_are_cut_where_they_stand() -> None:
    picture = Image.new("RGB", (PAIR_WIDTH, 128), "blue")
    picture.paste("red", (PAIR_WIDTH // 2, 0, PAIR_WIDTH, 128))
    left, right = (cut(picture, number) for number in (0, 1))
    assert left.size == right.size == (SIDE, SIDE)
    for one, colour in ((left, (0, 0, 255)), (right, (255, 0, 0))):
        assert all(one.getpixel(at) == colour for at in ((20, 5), (64, 64), (100, 120)))


def test_a_figure_is_right_by_what_marks_the_person() -> None:
    right = {"style": True, "hair": True, "glasses": True}
    assert is_right(right) and is_right({**right, "expression": False})
    assert not is_right({**right, "glasses": False}) and not is_right({**right, "style": False})
    assert shares([right, {**right, "hair": False}]) == {"style": 1.0, "hair": 0.5, "glasses": 1.0}


def test_all_is_right_where_all_is_read_as_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    class Oracle:
        @staticmethod
        def of(_reader: GeneReader, shown: torch.Tensor) -> Oracle:
            assert shown.shape[1:] == (3, SIDE, SIDE)
            return Oracle()

        def right(self, identity: Identity) -> dict[str, torch.Tensor]:
            return {gene: torch.ones(99, dtype=torch.bool) for gene in ("style", *identity.genes)}

    by_chance = measure(paint, READER, 20, 17)
    monkeypatch.setattr(measuring, "Reading", Oracle)
    told = measure(paint, READER, 20, 17)
    assert told["one"]["right"] == told["two"]["both_right"] == told["two"]["hair"] == 1.0
    assert by_chance["one"]["right"] < 0.5 and by_chance["two"]["both_right"] < 0.5
