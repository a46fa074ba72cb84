"""The people of the demo: nobody that the base has seen; captions leave to the concept what makes the person."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from demo.concepts import CONCEPTS, DemoConcept
from demo.people.captions import hair_words
from demo.people.genes import draw_look, is_held_out, make_person
from demo.people.sitters import COUNT, SITTERS, sitter
from demo.people.styles import STYLES
from demo.prepare import FOLDER, prepare_pictures


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


def _placed(comfyui: Path) -> dict[str, bytes]:
    root = comfyui / "input" / FOLDER
    return {str(path.relative_to(root)): path.read_bytes() for path in sorted(root.rglob("*")) if path.is_file()}


def test_putting_the_pictures_again_changes_nothing(tmp_path: Path) -> None:
    prepare_pictures(tmp_path)
    once = _placed(tmp_path)
    assert len(once) == 2 * COUNT * len(CONCEPTS)
    prepare_pictures(tmp_path)
    assert _placed(tmp_path) == once


def test_new_pictures_take_the_place_of_old_ones_and_leave_what_somebody_changed(tmp_path: Path) -> None:
    prepare_pictures(tmp_path)
    once, stamp = _placed(tmp_path), tmp_path / "input" / f"{FOLDER}.stamp"
    stamp.write_text("\n".join(["older", *stamp.read_text(encoding="utf-8").split()[1:]]), encoding="utf-8")
    for caption in ("hers", "hers again"):
        (tmp_path / "input" / FOLDER / "zed" / "00.txt").write_text(caption, encoding="utf-8")
        prepare_pictures(tmp_path)
        stamp.write_text("older", encoding="utf-8")
    found = _placed(tmp_path)
    assert {name: found[name] for name in once} == once
    assert found[str(Path("zed_1", "00.txt"))] == b"hers" and found[str(Path("zed_2", "00.txt"))] == b"hers again"
