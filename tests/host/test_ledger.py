"""Which slot a concept gets, from the files in the loras folder and the trainings of the session."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
from blocklora.blocklora_core.concept.concept import BlockLoRA, Concept
from blocklora.blocklora_core.concept.rows import Scheme
from blocklora.blocklora_core.files.io import save
from blocklora.blocklora_core.host import ledger
from blocklora.blocklora_core.host.base import base_name

from tests.host.tiny import CONTIGUOUS, Base, adaptable, make_lora

BASE = "sd15-26M"


@pytest.fixture(autouse=True)
def a_new_session(monkeypatch: pytest.MonkeyPatch, folders: Path) -> Path:
    monkeypatch.setattr(ledger, "_given", {})
    return folders / "models" / "loras"


@pytest.fixture
def small(base: Base) -> BlockLoRA:
    lora = make_lora(base, "<c>", 0, stems=list(adaptable(base))[:1])
    assert lora.base == base_name(base.model) == BASE
    return lora


def keep(folder: Path, lora: BlockLoRA, base: Base, name: str, slot: int) -> None:
    made = make_lora(base, name, slot, stems=list(lora.layers))
    save(folder / f"{made.concept.bare}.safetensors", made)


def choose(name: str, base: str = BASE, scheme: Scheme = CONTIGUOUS) -> int:
    return ledger.choose_slot(base, scheme, Concept(name))


def test_the_lowest_free_slot(a_new_session: Path, small: BlockLoRA, base: Base) -> None:
    keep(a_new_session, small, base, "<a>", 0)
    keep(a_new_session / "deep", small, base, "<b>", 2)
    assert choose("<c>") == 1


def test_two_trainings_of_a_session_get_slots_of_their_own() -> None:
    assert [choose("<a>"), choose("<b>"), choose("<a>")] == [0, 1, 0]


def test_a_slot_set_by_hand_is_not_given_away() -> None:
    ledger.hold_slot(BASE, CONTIGUOUS, Concept("<a>"), 0)
    assert choose("<b>") == 1


def test_a_concept_keeps_its_slot_when_it_is_trained_again(a_new_session: Path, small: BlockLoRA, base: Base) -> None:
    keep(a_new_session, small, base, "<a>", 7)
    assert choose("<a>") == 7


def test_other_bases_do_not_count(a_new_session: Path, small: BlockLoRA, base: Base) -> None:
    keep(a_new_session, small, base, "<a>", 0)
    assert choose("<b>", base="sdxl") == 0


def test_plain_loras_hold_no_slot(a_new_session: Path, small: BlockLoRA) -> None:
    plain = dataclasses.replace(small, layers={}, scheme=None, slot=None)
    save(a_new_session / "plain.safetensors", plain)
    (a_new_session / "broken.safetensors").write_bytes(b"broken")
    assert choose("<a>") == 0


def test_says_what_to_do_when_all_are_taken() -> None:
    for slot in range(CONTIGUOUS.slots):
        choose(f"<c{slot}>")
    with pytest.raises(ValueError, match=r"all are held: <c0>, .* and others\. Move concepts"):
        choose("<more>")
