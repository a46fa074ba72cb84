"""Casts, contrasts and tables of `bench people`; what needs no ComfyUI."""

from __future__ import annotations

import pickle

import pytest
import torch

from benchmarks.people import cast
from benchmarks.people.scoring.contrasts import MARGIN, contrast, holm
from blocklora_core.concept.prompt_lines import PLACEHOLDER
from demo.people import objects
from demo.people.genes import is_held_out
from demo.people.sitters import SITTERS
from demo.people.styles import STYLES

CROWD = cast.crowd()
EVERYONE = [*cast.development(), *(one for group in cast.test() for one in group), *CROWD[::10]]
PEOPLE = [one.identity for one in EVERYONE if one.identity]


def _key(style: str, genes: dict[str, str]) -> tuple[str, ...]:
    return (style, *(genes.get(gene, "") for gene in ("hair", "hair_colour", "skin")))


def test_casts_have_the_sizes_that_the_protocol_names():
    assert len(cast.development()) == 15
    assert [len(group) for group in cast.test()] == [16, 16]
    assert sum(1 for group in cast.test() for one in group if one.identity) == 24


def test_nobody_was_seen_by_the_base():
    # Whose hair has no colour to see, its rule's colour is not among the genes.
    seen = [one for one in PEOPLE if "hair_colour" in one.genes]
    assert len(seen) > len(PEOPLE) / 2
    assert all(is_held_out(STYLES[one.style], one.genes) for one in seen)
    words = {scene.parts[0]["word"] for one in EVERYONE for scene in one.scenes(1, 0) if "word" in scene.parts[0]}
    assert len(words) == 10
    assert all(objects.is_held_out(word) for word in words)


def test_a_hundred_people_of_all_styles_make_the_crowd():
    assert len({one.name for one in CROWD}) == 100
    assert len({one.identity.style for one in CROWD if one.identity}) == 6


def test_nobody_is_in_two_casts_or_in_the_demo():
    casts = [[one for one in EVERYONE if one not in CROWD], CROWD]
    keys = [_key(one.identity.style, one.identity.genes) for group in casts for one in group if one.identity]
    assert len(set(keys)) == len(keys)
    assert not set(keys) & {_key(style, genes) for style, genes in SITTERS.values()}
    names = [one.name for one in EVERYONE]
    assert len(set(names)) == len(names)


def test_a_prompt_names_the_concept_once_and_nothing_that_makes_it():
    for one in EVERYONE:
        assert len(one.prompts) == cast.PROMPTS
        for prompt in one.prompts:
            assert prompt.count(PLACEHOLDER) == 1
        if one.identity:
            assert not any(word in " ".join(one.prompts) for word in ("hair", "beard", "skin", "bun", "glasses"))


def test_captions_name_the_class_word_and_pictures_are_not_those_of_the_prompts():
    for one in EVERYONE:
        training, held = one.sets()["training"], one.sets()["held"]
        assert all(one.class_word in scene.caption.split() for scene in training)
        assert not [scene for scene in training if scene in held]


def test_a_worker_process_gets_the_same_concept():
    for one in EVERYONE:
        again = pickle.loads(pickle.dumps(one))  # noqa: S301  What was pickled here.
        assert again.sets() == one.sets()
        assert (again.name, again.class_word, again.prompts) == (one.name, one.class_word, one.prompts)


def test_equal_arms_do_not_differ():
    same = {"a": [0.5, 0.75, 1.0], "b": [0.25, 0.5, 0.5]}
    found = contrast(same, same, runs=1)
    assert found.difference == (0, 0, 0)
    assert found.p == 1
    assert found.no_worse


def test_a_clear_difference_is_told_with_its_sign():
    random = torch.Generator().manual_seed(0)
    low = {name: torch.rand(6, generator=random).tolist() for name in "abcdefghij"}
    high = {name: [score + 0.3 for score in scores] for name, scores in low.items()}
    found = contrast(high, low, runs=3)
    assert found.difference.mean == pytest.approx(0.3)
    assert found.p < 0.001
    assert found.no_worse
    assert not contrast(low, high, runs=3).no_worse


def test_no_worse_needs_the_whole_interval_above_the_margin():
    first, second = {"a": [0.5] * 4, "b": [0.5] * 4}, {"a": [0.5 + MARGIN * 3] * 4, "b": [0.5] * 4}
    assert not contrast(first, second, runs=1).no_worse


def test_arms_of_other_pictures_are_refused():
    with pytest.raises(ValueError, match="as many pictures"):
        contrast({"a": [0.5]}, {"a": [0.5, 0.6]}, runs=1)


def test_holm_by_hand():
    """Sorted .01, .02, .03, .04 times 4, 3, 2, 1 is .04, .06, .06, .04; none may be below one before it."""
    found = holm({"c": 0.03, "a": 0.01, "d": 0.04, "b": 0.02})
    assert list(found) == ["c", "a", "d", "b"]
    assert found == pytest.approx({"a": 0.04, "b": 0.06, "c": 0.06, "d": 0.06})
