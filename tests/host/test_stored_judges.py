"""The committed judges, on people that neither they nor the base ever saw: the demo's."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from demo.concepts import CONCEPTS
from demo.people.genes import make_person
from demo.people.reader.alignment import AlignmentRecipe, Captioned, batch_of, stored_evaluator
from demo.people.reader.reading import Identity, Reading
from demo.people.reader.stored import new_reader, path_of, stored_reader, write_reader
from demo.people.recipe.autoencoder import to_unit
from demo.people.sitters import sitter

SHOWN = {concept.name: [(np.asarray(one), caption) for one, caption in concept.pictures()] for concept in CONCEPTS}


def identities() -> list[Identity]:
    people = [make_person(*sitter(concept), {}) for concept in CONCEPTS]
    return [Identity(person.style.package, person.genes).trusted for person in people]


@pytest.mark.parametrize(("colour_blind", "least"), [(False, 0.9), (True, 0.7)])
def test_the_genes_of_people_that_it_never_saw_are_read(colour_blind: bool, least: float) -> None:
    reader, cast = stored_reader(colour_blind), identities()
    assert colour_blind == all(not question.of_colour for question in reader.questions)
    shares, found = [], []
    for place, concept in enumerate(CONCEPTS):
        reading = Reading.of(reader, to_unit([picture for picture, _ in SHOWN[concept.name]]))
        shares.append(reading.share_right(cast[place]).mean().item())
        found += (reading.nearest(cast) == place).tolist()
    assert np.mean(shares) > least and np.mean(found) > least


def test_a_picture_is_nearer_to_its_caption_than_to_others() -> None:
    evaluator = stored_evaluator()
    shown = [pair for pairs in SHOWN.values() for pair in pairs]
    pictures = to_unit([picture for picture, _ in shown]).movedim(1, -1)
    likeness = evaluator.images(pictures) @ evaluator.texts([caption for _, caption in shown]).T
    own = likeness.diagonal()
    assert (own[:, None] >= likeness).float().mean() > 0.9


def test_a_reader_is_kept_and_found_again(tmp_path: Path) -> None:
    torch.manual_seed(0)
    reader = new_reader(colour_blind=True).eval()
    write_reader(reader, tmp_path / "reader.xz")
    again = stored_reader(colour_blind=True, path=tmp_path / "reader.xz")
    picture = torch.rand(1, 3, 64, 64)
    for one, other in zip(reader(picture), again(picture), strict=True):
        torch.testing.assert_close(one, other, rtol=0.1, atol=0.05)
    assert path_of(True) != path_of(False)


def test_a_step_of_the_image_text_model_has_a_lot_of_its_own() -> None:
    found = Captioned(torch.arange(40, dtype=torch.uint8).view(-1, 1, 1, 1), [str(number) for number in range(40)])
    tired, recipe = Captioned(found.pictures + 100, found.captions), AlignmentRecipe(batch=8)
    (one, named), (again, _), (other, _) = (batch_of(found, tired, recipe, step) for step in (5, 5, 6))
    assert torch.equal(one, again) and not torch.equal(one, other)
    assert (one.flatten() * 255).round().int().tolist() == [
        int(name) + (100 if place < 2 else 0) for place, name in enumerate(named)
    ]
