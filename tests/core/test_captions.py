from __future__ import annotations

from collections import Counter

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from blocklora_core.training import Dataset, Example
from blocklora_core.training.data.captions import TEMPLATES, CaptionRules


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_without_rules_the_caption_stays_and_nothing_is_drawn() -> None:
    random = generator()
    before = random.get_state()
    assert CaptionRules().apply("a <hero>, red, {odd}", random) == "a <hero>, red, {odd}"
    assert torch.equal(random.get_state(), before)


@pytest.mark.parametrize(
    ("caption", "plain"),
    [
        ("miku (vocaloid), hat", r"miku \(vocaloid\), hat"),
        (r"miku \(vocaloid\)", r"miku \(vocaloid\)"),
        ("a (red:1.2) hat", r"a \(red:1.2\) hat"),
        ("no brackets", "no brackets"),
    ],
)
def test_brackets_are_just_brackets_unless_emphasis_is_wanted(caption: str, plain: str) -> None:
    assert CaptionRules().apply(caption, generator()) == plain
    assert CaptionRules(emphasis=True).apply(caption, generator()) == caption


@given(st.integers(0, 1000))
def test_shuffling_keeps_the_first_tag_and_all_others(seed: int) -> None:
    tags = CaptionRules(shuffle=True).apply("a <hero>, red, tall,  old", generator(seed)).split(", ")
    assert tags[0] == "a <hero>"
    assert Counter(tags[1:]) == Counter(["red", "tall", "old"])


def test_shuffling_does_shuffle() -> None:
    assert len({CaptionRules(shuffle=True).apply("a, b, c, d", generator(seed)) for seed in range(20)}) > 3


def test_dropout_empties_its_share() -> None:
    random = generator()
    used = [CaptionRules(dropout=0.25).apply("a <hero>", random) for _ in range(2000)]
    assert set(used) == {"", "a <hero>"}
    assert used.count("") / 2000 == pytest.approx(0.25, abs=0.03)


@pytest.mark.parametrize("template", sorted(TEMPLATES))
def test_templates_wrap_the_caption_and_all_are_used(template: str) -> None:
    random = generator()
    used = {CaptionRules(template=template).apply("a <hero> {x}", random) for _ in range(200)}
    assert used == {phrase.format("a <hero> {x}") for phrase in TEMPLATES[template]}


def test_impossible_rules_are_refused() -> None:
    with pytest.raises(ValueError, match="dropout: expected 0 to 1"):
        CaptionRules(dropout=1.5)
    with pytest.raises(ValueError, match="expected one of none, person, object, style, got 'dog'"):
        CaptionRules(template="dog")


@pytest.mark.parametrize("emphasis", [False, True])
def test_all_that_reads_captions_reads_them_as_the_batches_do(emphasis: bool) -> None:
    caption = "a <hero>, (red hat:1.5), miku \\(vocaloid\\)"
    data = Dataset([Example(torch.ones(4, 2, 2), caption)], 1, CaptionRules(emphasis=emphasis))
    (seen,) = data.batch(torch.Generator()).captions
    assert data.captions == [seen] == data.texts
    assert seen == (caption if emphasis else "a <hero>, \\(red hat:1.5\\), miku \\(vocaloid\\)")
