"""The people of the demo: nobody that the base has seen; captions leave to the concept what makes the person."""

from __future__ import annotations

import numpy as np
import pytest

from demo.concepts import CONCEPTS, DemoConcept
from demo.people.captions import hair_words
from demo.people.genes import draw_look, is_held_out, make_person
from demo.people.sitters import COUNT, SITTERS, sitter
from demo.people.styles import STYLES


@pytest.mark.parametrize("concept", CONCEPTS, ids=lambda concept: concept.folder)
def test_each_has_its_pictures(concept: DemoConcept) -> None:
    found = list(concept.pictures())
    assert len(found) == COUNT and {picture.size for picture, _ in found} == {(128, 128)}
    assert len({picture.tobytes() for picture, _ in found}) == COUNT
    captions = [caption for _, caption in found]
    assert all(f" {concept.class_word} " in caption and " background" in caption for caption in captions)
    assert len({caption.split(" on a")[-1] for caption in captions}) == 8, "a ground of its own would mark the person"


@pytest.mark.parametrize("concept", CONCEPTS, ids=lambda concept: concept.folder)
def test_nobody_is_known_to_the_base_or_described_to_the_concept(concept: DemoConcept) -> None:
    style, identity = sitter(concept)
    hair = hair_words(make_person(style, identity, draw_look(style, np.random.RandomState(0))))
    assert hair
    told = " ".join(caption for _, caption in concept.pictures())
    assert not [words for words in (hair, "glasses", "skin") if words in told]
    assert concept.style == style.word and f" {style.word} {concept.class_word}" in told


def test_someone_that_the_base_has_seen_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    package, identity = SITTERS["<amelia>"]
    seen = next({**identity, "skin": skin} for skin in ("tan", "brown", "dark") if _known(package, identity, skin))
    monkeypatch.setitem(SITTERS, "<amelia>", (package, seen))
    with pytest.raises(ValueError, match="expected a person that is held out"):
        sitter(CONCEPTS[0])


def _known(package: str, identity: dict[str, str], skin: str) -> bool:
    return not is_held_out(STYLES[package], {**identity, "skin": skin})
