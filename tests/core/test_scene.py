"""Scenes as text: forgiving where they can be, bad boxes by their numbers, and regions as drawn."""

from __future__ import annotations

import json
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from blocklora_core.regions import Box, layout
from blocklora_core.regions.scene import FIELDS, MOST_BOXES, SceneBox, SceneError, check_names, parse_scene, placed

SQUARE = ((0.25, 0.25), (0.75, 0.25), (0.75, 0.75), (0.25, 0.75))


def scene(*boxes: Any) -> str:
    return json.dumps({"boxes": boxes, "picture": "last.png"})


def box(**fields: Any) -> dict[str, Any]:
    return {"concept": "<ada>", **fields}


SAID = [
    ("", ()),
    ("{}", ()),
    ('{"boxes": []}', ()),
    ('[{"concept": " <ada> "}]', (SceneBox(Box(0, 0, 1, 1), "<ada>"),)),
    (scene(box(x=0.5, w=0.25)), (SceneBox(Box(0.5, 0, 0.25, 1), "<ada>"),)),
    (scene(box(x="0.5", width=0.25, height="0.5")), (SceneBox(Box(0.5, 0, 0.25, 0.5), "<ada>"),)),
    (scene(box(lasso=SQUARE, x=None)), (SceneBox(SQUARE, "<ada>"),)),
    (scene(box(lasso=[], w=0.5)), (SceneBox(Box(0, 0, 0.5, 1), "<ada>"),)),
    (
        scene({"prompt": "a cat", "negative": "dog", "weight": 2, "feather": 0.1}),
        (SceneBox(prompt="a cat", negative="dog", weight=2.0, feather=0.1),),
    ),
]


@pytest.mark.parametrize(("text", "boxes"), SAID)
def test_a_scene_says_what_it_seems_to_say(text: str, boxes: tuple[SceneBox, ...]) -> None:
    assert parse_scene(text) == boxes


BAD = [
    ("a cat", "expected an object with x, y, w, h and a prompt, got 'a cat'"),
    ({}, "expected a concept or a prompt, got neither"),
    (box(promt="a cat"), "expected x, y, w, h, concept, prompt, negative, weight, feather, lasso, got 'promt'"),
    (box(x="left"), "expected a number in x, got 'left'"),
    (box(x=True), "expected a number in x, got True"),
    (box(w=float("nan")), "expected a number in w"),
    (box(h=10**400), "expected a number in h"),
    (box(x=1.5), "nothing of that is in the picture"),
    (box(w=0), "nothing of that is in the picture"),
    (box(weight=-1), "expected a weight of 0 or more, got -1"),
    (box(feather=2), "expected a feather from 0 to 1"),
    (box(prompt=3), "expected text in prompt, got 3"),
    (box(lasso=[[0, 0], [1, 1]]), "expected a lasso of 3 to 4096 points [x, y]"),
    (box(lasso=[[0, 0], [1, 1], [2]]), "expected a lasso of 3 to 4096 points [x, y]"),
    (box(lasso=[[0, 0], [1, "b"], [1, 1]]), "expected a number in y, got 'b'"),
    (box(lasso=[[2, 0], [3, 1], [2, 1]]), "nothing of that is in the picture"),
]


@pytest.mark.parametrize(("bad", "problem"), BAD)
def test_a_bad_box_is_named_by_its_number(bad: Any, problem: str) -> None:
    with pytest.raises(SceneError) as caught:
        parse_scene(json.dumps([box(), bad, box()]))
    assert str(caught.value).startswith("Box 2: ") and problem in str(caught.value)


def test_all_bad_boxes_are_named_at_once() -> None:
    with pytest.raises(SceneError) as caught:
        parse_scene(scene({}, box(), box(x=2)))
    assert set(caught.value.problems) == {1, 3}


TOO_MANY = json.dumps([{}] * (MOST_BOXES + 1))


@pytest.mark.parametrize("text", ["[", "boxes", '{"boxes": 3}', "[" * 99 + "]" * 99, TOO_MANY])
def test_what_is_no_scene_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="Scene: expected"):
        parse_scene(text)


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5) | st.just("<ada>"),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(FIELDS), inner, max_size=4),
    max_leaves=12,
)


@given(values | st.lists(st.dictionaries(st.sampled_from(FIELDS), values), max_size=3))
def test_whatever_is_written_there_is_a_scene_or_refused_with_the_reason(value: Any) -> None:
    try:
        boxes = parse_scene(json.dumps(value))
    except ValueError as error:
        assert "expected" in str(error)
        return
    for one in boxes:
        assert one.text("a park") and one.region((8, 8), None, None).weight == one.weight


shares = st.floats(0, 0.9)


@given(st.lists(st.tuples(shares, shares), min_size=1, max_size=5))
def test_boxes_are_regions_in_their_order_the_last_in_front(corners: list[tuple[float, float]]) -> None:
    drawn = parse_scene(scene(*(box(x=x, y=y, w=0.1, h=0.1) for x, y in corners)))
    regions = [one.region((64, 64), number, None) for number, one in enumerate(drawn)]
    assert [region.shape for region in regions] == [Box(x, y, 0.1, 0.1) for x, y in corners]
    laid = layout(regions, (64, 64), "priority")
    assert float(laid.weights[-1].sum()) == float(layout(regions[-1:], (64, 64)).weights.sum())


def test_a_lasso_is_a_mask_of_the_picture() -> None:
    (drawn,) = parse_scene(scene(box(lasso=SQUARE, feather=0.1, weight=0.5)))
    region = drawn.region((8, 16), "positive", "negative")
    assert isinstance(region.shape, torch.Tensor)
    assert region.shape.shape == (8, 16) and bool(region.shape[3:5, 5:11].all())
    assert not region.shape[:, :3].any() and not region.shape[:1].any()
    assert (region.positive, region.negative, region.weight, region.feather) == ("positive", "negative", 0.5, 0.1)


@pytest.mark.parametrize(
    ("written", "said"),
    [
        (box(), "a <ada>, a park"),
        (box(prompt="{concept} in a coat"), "<ada> in a coat"),
        (box(prompt="{scene}, {concept}"), "a park, <ada>"),
        ({"prompt": "a dog,"}, "a dog,"),
    ],
)
def test_a_box_s_prompt_may_speak_of_the_scene(written: dict[str, Any], said: str) -> None:
    (drawn,) = parse_scene(scene(written))
    assert drawn.text(" a park ") == said


def test_without_a_scene_no_comma_is_left() -> None:
    assert parse_scene(scene(box()))[0].text("") == "a <ada>"


GIVEN = [{"x": 0, "y": 0, "width": 32, "height": 64}, {"x": 32, "y": 16, "width": 32, "height": 48, "score": 0.9}]


@pytest.mark.parametrize("given_", [GIVEN, [GIVEN], [GIVEN, []]])
def test_the_host_s_bounding_boxes_say_where_the_boxes_are(given_: Any) -> None:
    drawn = parse_scene(scene(box(lasso=SQUARE, weight=2), box(prompt="b")))
    moved = placed(drawn, given_, (64, 64))
    assert [one.shape for one in moved] == [Box(0, 0, 0.5, 1), Box(0.5, 0.25, 0.5, 0.75)]
    assert [(one.prompt, one.weight) for one in moved] == [("", 2), ("b", 1)]


def test_bounding_boxes_are_as_many_and_in_the_picture() -> None:
    drawn = parse_scene(scene(box()))
    assert placed(drawn, GIVEN[0], (64, 64))[0].shape == Box(0, 0, 0.5, 1)
    for given_ in ([], [[]], GIVEN):
        with pytest.raises(ValueError, match="Bounding boxes: expected 1, one for each box"):
            placed(drawn, given_, (64, 64))
    with pytest.raises(SceneError, match=r"Box 1: .*nothing of that is in the picture"):
        placed(drawn, {**GIVEN[0], "x": 64}, (64, 64))
    with pytest.raises(SceneError, match="Box 1: expected a number in width, got None"):
        placed(drawn, {"x": 0, "y": 0}, (64, 64))


def test_a_name_that_nobody_has_is_refused_by_the_box() -> None:
    drawn = parse_scene(scene(box(), box(prompt="an <Ada> and {concept}"), {"concept": "a dog"}))
    check_names(drawn, "a park with <ada>", ["<ada>", "<zed>"])
    check_names(drawn, "<anyone>", [])
    with pytest.raises(SceneError, match="Box 1: expected a name among <zed>, got <ada>") as caught:
        check_names(drawn, "", ["<zed>"])
    assert set(caught.value.problems) == {1, 2}
    with pytest.raises(ValueError, match="Prompt of the picture: expected a name among <ada>, got <zed>"):
        check_names(drawn, "<zed>", ["<ada>"])
