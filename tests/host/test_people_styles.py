"""`bench people style` tells a style, a person's colours and the ground by what a picture shows."""

from __future__ import annotations

import re
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from benchmarks.identity_study.work import PromptCase
from benchmarks.people import cast, stylised
from benchmarks.people.stylised import MICAH, SEEDS, TAUGHT, WAYS, cells
from demo.concepts import CONCEPTS
from demo.people.reader.stored import stored_reader
from demo.people.sitters import sitter
from tests.host.test_stored_judges import SHOWN


def shown(of: str, asked: str, ground: str = "") -> dict[str, float]:
    """What is read of a picture of one when another was asked for."""
    concept = next(one for one in CONCEPTS if one.name == asked)
    array, caption = SHOWN[of][0]
    picture = torch.from_numpy(array / 255).float()[None]
    prompt = f"a woman on a {ground} background" if ground else caption
    case = PromptCase(cast.person(asked, *sitter(concept), seed=0), prompt, (0,))
    cell: Any = SimpleNamespace(pictures=lambda _: [(case, picture)])
    (found,) = stylised.read(stored_reader(), cell, None, MICAH)  # type: ignore[arg-type]
    return found


def test_a_picture_as_asked_is_right() -> None:
    assert shown("<felix>", "<felix>") == {"style": 1, "colours": 1, "ground": 1, "all": 1}


def test_another_style_colour_and_ground_are_told() -> None:
    style, colours = shown("<amelia>", "<amelia>"), shown("<felix>", "<zed>")
    assert (style["style"], style["colours"], style["all"]) == (0, 1, 0)
    assert (colours["style"], colours["colours"], colours["all"]) == (1, 0, 0)
    own = SHOWN["<felix>"][0][1]
    other = next(ground for ground in ("green", "pink") if not own.endswith(f"{ground} background"))
    assert shown("<felix>", "<felix>", other)["ground"] == 0


@pytest.mark.parametrize("name", WAYS)
def test_every_person_of_another_style_is_asked_for_in_it(name: str) -> None:
    way, seen = WAYS[name], set()
    for cell in cells(way):
        (member,) = {case.member for case in cell.cases}
        seen.add(member.name)
        assert len(cell.cases) == SEEDS and (len(cell.trained) == 2) != way.whole
        assert {one.member.name for one in cell.trained} >= {member.name, way.taught.name}
        for case in cell.cases:
            assert case.prompt.split().count(member.name) == 1
            assert way.style == "" or case.prompt.split().count(way.style) == 1
    assert len(seen) == sum(one.identity.style != way.package for one in cast.development() if one.identity)


def test_sparing_captions_name_nothing_that_only_the_style_has() -> None:
    wordy, *spare = TAUGHT
    sparing = re.compile(r"an? [a-z]+ \{concept\} (man|woman|person) with [a-z]+ skin on an? [a-z]+ background")
    assert not any(sparing.fullmatch(prompt) for prompt in wordy.prompts)
    assert all(sparing.fullmatch(prompt) for one in spare for prompt in one.prompts)
