"""The papers' metrics, each against a loop written from its definition."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from blocklora_core.evaluation import (
    ConceptScores,
    Interval,
    Measured,
    accuracy,
    bootstrap,
    confusion,
    crop,
    drift,
    drifts,
    evaluation_prompt,
    hits,
    image_alignment,
    mean_alignment,
    nearest,
    retention,
    summarise,
    text_alignment,
)
from tests.core.samples import generator

NAMES = ["<a>", "<b>", "<c>"]
# Half of the smallest number there is is none.
scores = st.floats(0, 1).map(lambda value: round(value, 6))
groups = st.lists(st.lists(scores, min_size=1, max_size=6), min_size=1, max_size=5)


def unit(count: int, seed: int, width: int = 5) -> Tensor:
    found = torch.randn(count, width, generator=generator(seed))
    return found / found.norm(dim=1, keepdim=True)


def cosine(a: Tensor, b: Tensor) -> float:
    return sum(float(x) * float(y) for x, y in zip(a, b, strict=True)) / float(a.norm() * b.norm())


def test_image_alignment_is_the_mean_over_references() -> None:
    pictures, references = unit(4, 1), unit(3, 2)
    found = image_alignment(pictures, references)
    for at, picture in enumerate(pictures):
        expected = sum(max(cosine(picture, reference), 0) for reference in references) / 3
        assert float(found[at]) == pytest.approx(expected, abs=1e-6)


def test_text_alignment_is_clipscore() -> None:
    pictures, texts = unit(4, 1), unit(4, 3)
    for at, (picture, text) in enumerate(zip(pictures, texts, strict=True)):
        expected = 2.5 * max(cosine(picture, text), 0)
        assert float(text_alignment(pictures, texts)[at]) == pytest.approx(expected, abs=1e-6)
        assert float(text_alignment(pictures, text[None])[at]) == pytest.approx(expected, abs=1e-6)
    assert mean_alignment(0.775, 0.743) == pytest.approx(0.759)


@pytest.mark.parametrize("others", [unit(0, 1), unit(2, 1, width=4), unit(2, 1)[0]])
def test_embeddings_that_do_not_fit_are_an_error(others: Tensor) -> None:
    with pytest.raises(ValueError, match="Expected embeddings of one width"):
        image_alignment(unit(3, 2), others)


def test_as_many_texts_as_pictures_or_one() -> None:
    with pytest.raises(ValueError, match="expected one for each of the 3 pictures or one, got 2"):
        text_alignment(unit(3, 2), unit(2, 1))


@pytest.mark.parametrize(
    ("prompt", "scored"),
    [
        ("a <hero> on a beach", "a man on a beach"),
        ("a <hero> man on a beach", "a man on a beach"),
        ("a <hero>  manly man", "a man manly man"),
        ("<hero> and a <hero> man", "man and a man"),
        ("an x<hero>y", "an x<hero>y"),
        ("a castle", "a castle"),
    ],
)
def test_prompts_are_scored_with_the_class_word(prompt: str, scored: str) -> None:
    assert evaluation_prompt(prompt, "<hero>", "man") == f"A photo depicts {scored}"


def test_plain_and_odd_names_and_class_words() -> None:
    assert (
        evaluation_prompt("felix met Prof. felixson", "felix", "tom cat")
        == "A photo depicts tom cat met Prof. felixson"
    )
    assert evaluation_prompt("a c++ logo", "c++", r"a\1") == r"A photo depicts a a\1 logo"
    assert evaluation_prompt("a <hero> man", "<hero>", "") == "A photo depicts a man"
    assert evaluation_prompt("a <Hero> Man", "<hero>", "man") == "A photo depicts a man"


def test_nearest_is_the_concept_of_the_nearest_reference() -> None:
    pictures, references = unit(20, 1), {name: unit(4, seed) for seed, name in enumerate(NAMES, 5)}
    for picture, found in zip(pictures, nearest(pictures, references), strict=True):
        best = {name: max(cosine(picture, one) for one in given) for name, given in references.items()}
        assert found == max(best, key=lambda name: best[name])


def test_ties_do_not_depend_on_the_order() -> None:
    one = unit(1, 1)
    for names in (("<a>", "<b>"), ("<b>", "<a>")):
        assert nearest(one, dict.fromkeys(names, one)) == ["<a>"]


@pytest.mark.parametrize("references", [{}, {"<a>": unit(0, 1), "<b>": unit(1, 1)}])
def test_nearest_needs_references(references: dict[str, Tensor]) -> None:
    with pytest.raises(ValueError, match="Expected references of every concept, got none"):
        nearest(unit(1, 2), references)


found_names = st.dictionaries(
    st.sampled_from(NAMES), st.lists(st.sampled_from(NAMES), min_size=1, max_size=9), min_size=1
)


@given(found_names)
def test_confusion_counts(found: dict[str, list[str]]) -> None:
    table = confusion(found, NAMES)
    for row, asked in enumerate(NAMES):
        if asked not in found:
            assert table[row].isnan().all()
            continue
        assert float(table[row].sum()) == pytest.approx(1)
        for column, name in enumerate(NAMES):
            assert float(table[row, column]) == found[asked].count(name) / len(found[asked])
    shares = [found[name].count(name) / len(found[name]) for name in found]
    assert accuracy(found) == pytest.approx(sum(shares) / len(shares))
    assert {name: sum(row) for name, row in hits(found).items()} == {name: found[name].count(name) for name in found}


@given(found_names, st.permutations(NAMES))
def test_the_order_of_concepts_does_not_matter(found: dict[str, list[str]], order: list[str]) -> None:
    table, other = confusion(found, NAMES), confusion(dict(reversed(found.items())), order)
    at = [order.index(name) for name in NAMES]
    torch.testing.assert_close(other[at][:, at], table, equal_nan=True)
    assert accuracy(dict(reversed(found.items()))) == pytest.approx(accuracy(found))


def test_confusion_knows_all_names() -> None:
    with pytest.raises(ValueError, match="expected names among <a>, got <x>"):
        confusion({"<a>": ["<x>"]}, ["<a>"])
    assert math.isnan(accuracy({}))


@given(groups, st.integers(0, 9))
def test_an_interval_holds_the_mean_of_the_groups_and_is_seeded(given_groups: list[list[float]], seed: int) -> None:
    found = bootstrap(given_groups, seed, draws=200)
    mean = sum(sum(group) / len(group) for group in given_groups) / len(given_groups)
    assert found.mean == pytest.approx(mean, abs=1e-9)
    assert 0 <= found.low <= found.mean <= found.high <= 1 + 1e-9
    assert bootstrap(given_groups, seed, draws=200) == found


def test_the_interval_is_that_of_a_bootstrap_by_hand() -> None:
    random, given_groups = generator(3), [[0.1, 0.5, 0.9, 0.4], [0.2, 0.3], [0.8, 0.7, 0.6]]
    drawn = []
    for _ in range(4000):
        picked = [given_groups[at] for at in torch.randint(3, (3,), generator=random)]
        means = []
        for group in picked:
            members = [group[at] for at in torch.randint(len(group), (len(group),), generator=random)]
            means.append(sum(members) / len(members))
        drawn.append(sum(means) / 3)
    low, high = torch.quantile(torch.tensor(drawn), torch.tensor([0.025, 0.975])).tolist()
    found = bootstrap(given_groups, draws=4000)
    assert (found.low, found.high) == (pytest.approx(low, abs=0.02), pytest.approx(high, abs=0.02))
    wider = bootstrap(given_groups, draws=4000, level=0.99)
    assert wider.low < found.low and found.high < wider.high
    assert bootstrap(given_groups, seed=1) != bootstrap(given_groups, seed=2)


def test_runs_are_drawn_between_concepts_and_pictures() -> None:
    """Against the same by hand, in three stages."""
    random = generator(5)
    nested = [[[0.1, 0.2], [0.8, 0.9], [0.5, 0.4]], [[0.3, 0.1], [0.2, 0.2], [0.9, 1.0]]]
    drawn = []
    for _ in range(4000):
        means = []
        for at in torch.randint(2, (2,), generator=random):
            for run in torch.randint(3, (3,), generator=random):
                members = torch.randint(2, (2,), generator=random)
                means.append(sum(nested[at][run][member] for member in members) / 2)
        drawn.append(sum(means) / 6)
    low, high = torch.quantile(torch.tensor(drawn), torch.tensor([0.025, 0.975])).tolist()
    flat = [[score for run in group for score in run] for group in nested]
    found = bootstrap(flat, draws=4000, runs=3)
    assert (found.low, found.high) == (pytest.approx(low, abs=0.02), pytest.approx(high, abs=0.02))
    pooled = bootstrap(flat, draws=4000)
    assert pooled.mean == pytest.approx(found.mean)
    assert pooled.high - pooled.low < found.high - found.low, "pictures of one training are not independent"


def test_pictures_of_one_training_are_no_new_evidence() -> None:
    """Copies of every picture change nothing: only its training was drawn."""
    few, many = [[0.0, 1.0, 1.0]] * 2, [[0.0] * 8 + [1.0] * 16] * 2
    assert bootstrap(few, runs=3).high == pytest.approx(bootstrap(many, runs=3).high, abs=0.02)
    assert bootstrap(many).high < bootstrap(many, runs=3).high


def test_every_run_has_as_many_pictures() -> None:
    with pytest.raises(ValueError, match=r"Expected as many scores of each of 2 runs, got groups of \[4, 3\]"):
        bootstrap([[0.1] * 4, [0.2] * 3], runs=2)


def test_retention_draws_runs_too() -> None:
    merged, single = {"<a>": [0.1, 0.1, 0.9, 0.9]}, {"<a>": [1.0] * 4}
    by_run, pooled = retention(merged, single, runs=2), retention(merged, single)
    assert by_run is not None and pooled is not None and by_run.mean == pooled.mean
    assert (by_run.low, by_run.high) == (pytest.approx(0.1), pytest.approx(0.9))
    assert pooled.high - pooled.low <= by_run.high - by_run.low


def test_a_summary_draws_the_runs_of_what_was_measured() -> None:
    scores = {"<a>": ConceptScores((0.1,) * 8 + (0.9,) * 8, (), ("<a>",) * 8 + ("<b>",) * 8)}
    one, two = (summarise(Measured("m", scores, runs=runs), None) for runs in (1, 2))
    assert one.image.mean == two.image.mean and one.image != two.image
    assert (two.accuracy.low, two.accuracy.high) == (0.0, 1.0)


def test_a_bootstrap_in_parts_is_sound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("blocklora_core.evaluation.intervals._AT_ONCE", 7)
    found = bootstrap([[0.0, 1.0], [0.0, 1.0, 1.0]], draws=300)
    assert found.low < found.mean < found.high


@pytest.mark.parametrize("bad", [[], [[0.5], []]])
def test_groups_need_members(bad: list[list[float]]) -> None:
    with pytest.raises(ValueError, match="Expected groups with at least one score"):
        bootstrap(bad)


def test_retention_is_the_ratio_of_means_over_concepts() -> None:
    merged, single = {"<a>": [0.6, 0.8], "<b>": [0.3]}, {"<a>": [0.8, 0.8], "<b>": [0.6], "<c>": [0.1]}
    found = retention(merged, single)
    assert found is not None and found.mean == pytest.approx((0.7 + 0.3) / (0.8 + 0.6))
    assert found.low < found.mean < found.high
    same = retention(single, single)
    # Pairs are drawn together: what keeps all keeps all in every draw.
    assert same is not None and same == Interval(*[pytest.approx(1.0)] * 3)


@given(groups)
def test_retention_of_pairs_that_all_keep_half(given_groups: list[list[float]]) -> None:
    single = {str(at): group for at, group in enumerate(given_groups)}
    found = retention({name: [value / 2 for value in group] for name, group in single.items()}, single, draws=100)
    if not any(map(sum, given_groups)):
        assert found is None
    else:
        assert found is not None and found == Interval(*[pytest.approx(0.5)] * 3)


def test_retention_needs_pairs() -> None:
    with pytest.raises(ValueError, match=r"<a>: expected as many scores on both sides.*got 1 and 2"):
        retention({"<a>": [0.5]}, {"<a>": [0.5, 0.6]})
    with pytest.raises(ValueError, match="<a>: expected as many"):
        retention({"<a>": [0.5]}, {})


def test_drift_is_image_alignment_of_class_pictures_tuned_minus_base() -> None:
    tuned, base, references = ({name: unit(3, seed + at) for at, name in enumerate(NAMES)} for seed in (1, 11, 21))
    total = 0.0
    for name in NAMES:
        for after, before in zip(tuned[name], base[name], strict=True):
            total += sum(max(cosine(after, one), 0) - max(cosine(before, one), 0) for one in references[name]) / 3
    found = drift(tuned, base, references)
    assert found.mean == pytest.approx(total / 9, abs=1e-6) and found.low < found.mean < found.high
    assert drift(base, base, references) == Interval(0, 0, 0)
    assert drifts(tuned, base, references).keys() == set(NAMES)


def ramp(height: int, width: int) -> Tensor:
    """Red grows with x, green with y."""
    red = torch.arange(width).expand(height, width) / width
    green = torch.arange(height)[:, None].expand(height, width) / height
    return torch.stack([red, green, torch.zeros(height, width)], -1)


@pytest.mark.parametrize("box", [(0.25, 0.5, 0.5, 0.25), (20, 30, 40, 15)])
def test_boxes_in_shares_and_in_pixels(box: tuple[float, float, float, float]) -> None:
    picture = ramp(60, 80)
    found = crop(picture, box, size=15)
    torch.testing.assert_close(found, picture[30:45, 20:60])
    torch.testing.assert_close(crop(picture.expand(2, -1, -1, -1), box, size=15)[1], found)
    assert crop(picture, box, size=30).shape == (30, 80, 3)


@given(st.floats(0, 0.9), st.floats(0, 0.9), st.floats(0.1, 1), st.floats(0.1, 1))
def test_crops_keep_the_middle_of_the_box(x: float, y: float, width: float, height: float) -> None:
    found = crop(ramp(100, 200), (x, y, width, height), size=32)
    assert min(found.shape[:2]) == 32 and found.min() >= 0 and found.max() <= 1
    middle = found.mean((0, 1))
    for at, (start, extent, side) in enumerate(((x, width, 200), (y, height, 100))):
        left, right = round(start * side), min(round((start + extent) * side), side)
        assert float(middle[at]) == pytest.approx((left + right - 1) / 2 / side, abs=0.02)


@pytest.mark.parametrize("box", [(1.0, 0, 0.5, 1), (0, 0, 0, 1), (0, 0, 0.001, 1), (90, 0, 10, 10), (-5, -5, 4, 4)])
def test_boxes_without_a_pixel_are_an_error(box: tuple[float, float, float, float]) -> None:
    with pytest.raises(ValueError, match="expected x, y, width, height of a part of the picture of 80 x 60"):
        crop(ramp(60, 80), box)


def test_a_strip_too_thin_to_show_anything_is_an_error() -> None:
    with pytest.raises(ValueError, match="at most 256 times as long as it is wide, got 2048 x 1 pixels"):
        crop(torch.zeros(1, 2048, 3), (0, 0, 1, 1))
