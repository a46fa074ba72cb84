"""Where `bench boxes` puts its concepts."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from benchmarks.boxes_study.layouts import HALVES, LAYOUTS, Layout
from demo.art import SIZE
from demo.cast import Member, Picture


def black(_art: Path, member: Member, _held: bool) -> Iterator[Picture]:
    yield Image.new("RGB", (SIZE, SIZE)), f"a {member.class_word} on a yellow background"


MEMBER = Member("<it>", "robot", (), (), black, ())


@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS.keys())
def test_what_is_looked_at_is_a_square_inside_its_box_and_nothing_overlaps(layout: Layout) -> None:
    height, width = layout.size
    ends = 0.0
    for box, seen in zip(layout.boxes, layout.seen, strict=True):
        assert round(seen.width * width) == round(seen.height * height) >= SIZE // 2
        assert box.x == seen.x >= ends and box.width == seen.width and seen.y + seen.height <= box.y + box.height
        ends = box.x + box.width
    assert ends == pytest.approx(1.0)


def test_halves_are_trained_on_the_left_and_on_the_right_where_they_are_looked_for() -> None:
    pictures = HALVES.member(MEMBER).training(Path())
    captions = ["a robot on the left on a yellow background", "a robot on the right on a yellow background"]
    assert [caption for _, caption in pictures] == captions
    for (picture, _), seen in zip(pictures, HALVES.seen, strict=True):
        rows, columns = np.nonzero(np.asarray(picture).sum(-1) == 0)
        assert (columns.min(), columns.max() + 1) == (seen.x * SIZE, (seen.x + seen.width) * SIZE)
        assert (rows.min(), rows.max() + 1) == (seen.y * SIZE, (seen.y + seen.height) * SIZE)


def test_rows_keep_the_concepts_own_pictures_and_prompts() -> None:
    assert LAYOUTS["3"].member(MEMBER) is MEMBER
    assert LAYOUTS["3"].phrases(("x", "y", "z")) == ["a x", "a y", "a z"]
    assert HALVES.phrases(("x", "y")) == ["a x on the left", "a y on the right"]


def test_the_same_halved_concept_is_the_same_training() -> None:
    assert HALVES.member(MEMBER) == HALVES.member(MEMBER)
    assert hash(HALVES.member(MEMBER)) == hash(HALVES.member(MEMBER))
