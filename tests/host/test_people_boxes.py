"""`bench people boxes` looks at the right part of a picture, and tells who stands there."""

from __future__ import annotations

from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from benchmarks.people import boxes
from benchmarks.people.cast import Drawn, person
from demo.concepts import CONCEPTS
from demo.people.reader.stored import stored_reader
from demo.people.scenes import GROUNDS
from demo.people.sitters import sitter
from demo.people.styles import STYLES
from tests.host.test_stored_judges import SHOWN


@pytest.fixture
def sitters(monkeypatch: pytest.MonkeyPatch) -> Sequence[Drawn]:
    found = [person(concept.name, *sitter(concept), seed=at) for at, concept in enumerate(CONCEPTS)]
    monkeypatch.setattr(boxes, "people", lambda: found)
    return found


def in_a_row(pictures: Sequence[Tensor]) -> Tensor:
    """(H, W, 3) each -> side by side, 16 pixels apart."""
    gap = torch.ones(128, 16, 3)
    parts = [part for picture in pictures for part in (picture, gap)]
    return torch.cat(parts[:-1], 1)


def shown_in_order(*names: str) -> Tensor:
    return in_a_row([torch.from_numpy(SHOWN[name][0][0] / 255).float() for name in names])


def asked(*names: str, background: str) -> Any:
    return SimpleNamespace(layout=boxes.LAYOUTS[str(len(names))], names=names, background=background)


@pytest.mark.usefixtures("sitters")
def test_who_stands_in_a_box_is_told_and_who_does_not() -> None:
    reader, names = stored_reader(), [concept.name for concept in CONCEPTS[:3]]
    picture = shown_in_order(*names)
    ground = SHOWN[names[0]][0][1].rsplit(" on ", 1)[1]
    found = boxes.read(reader, asked(*names, background=ground), picture)
    assert found["right"] == 1 and found["genes"] > 0.85 and found["ground"] >= 1 / 3
    mixed = boxes.read(reader, asked(names[1], names[2], names[0], background=ground), picture)
    assert mixed["right"] == 0 and mixed["genes"] < found["genes"]


@pytest.mark.parametrize("name", boxes.LAYOUTS)
def test_every_person_is_asked_for_on_every_ground_by_a_prompt_as_captions_are(name: str) -> None:
    layout = boxes.LAYOUTS[name]
    found = boxes.scenes("regional", layout)
    assert {name for scene in found for name in scene.names} == {one.name for one in boxes.people()}
    assert {scene.background.split()[1] for scene in found} == set(GROUNDS)
    assert len({scene.seeds for scene in found}) == len(found) == boxes.SEEDS
    words = {one.name: STYLES[one.identity.style].word for one in boxes.people() if one.identity}
    for scene in found:
        prompts = scene.layout.phrases(scene._called(scene.names))
        assert all(f" {words[name]} {name}" in prompt for name, prompt in zip(scene.names, prompts, strict=True))


def test_figures_of_a_pair_are_cut_as_the_base_is_measured() -> None:
    picture = torch.zeros(128, 192, 3)
    picture[:, :96, 0], picture[:, 96:, 2] = 1.0, 1.0
    left, right = boxes._figures_of(picture, boxes.PAIR)
    assert left.shape == (3, 128, 128)
    assert left[0].mean() > 0.9 and right[2].mean() > 0.9
