"""The report's figures against their definitions, its words, its table and its picture."""

from __future__ import annotations

import csv
import io
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from blocklora_core.concept.adapters import Adapter
from blocklora_core.concept.concept import BlockLoRA, Stack
from blocklora_core.concept.rows import Scheme, count
from blocklora_core.files.io import save
from blocklora_core.files.slots import tables
from blocklora_core.merge.diagnostics import layer_cosines, layer_sign_conflicts
from blocklora_core.merge.methods.fused import fused
from blocklora_core.reports.inspection import inspect, report_picture, table, text
from blocklora_core.reports.inspection.crosstalk import answer, crosstalk
from blocklora_core.reports.inspection.figures import PairFigures
from blocklora_core.reports.inspection.verdict import (
    HIGH_CROSSTALK,
    HIGH_INTERFERENCE,
    LOW_CROSSTALK,
    LOW_INTERFERENCE,
    outlook,
    verdict,
)
from blocklora_core.reports.palette import FREE, colour
from blocklora_core.reports.slots import slot_picture
from tests.core.samples import CONV, KEY, QUERY, TEXT, Recipe, inputs, with_grams

SMALL = Recipe(shapes={QUERY: (320, 12), KEY: (320, 12), TEXT: (64, 10)})


def make(name: str, slot: int, recipe: Recipe = SMALL, seed: int | None = None) -> BlockLoRA:
    lora = recipe.make(name, slot, seed=slot if seed is None else seed)
    return with_grams(lora, inputs(lora, slot))


@pytest.fixture(scope="module")
def blocks() -> Stack:
    return tuple(make(f"<c{slot}>", slot) for slot in range(3))


@pytest.fixture(scope="module")
def plain() -> Stack:
    return tuple(make(f"<p{slot}>", slot, replace(SMALL, scheme=None)) for slot in range(3))


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 10**6), st.sampled_from([None, Scheme()]), st.integers(1, 12))
def test_crosstalk_is_its_definition(seed: int, scheme: Scheme | None, kept: int) -> None:
    recipe = replace(SMALL, scheme=scheme, scale=0.7)
    a, b = (recipe.make(name, slot, seed=seed + slot) for slot, name in enumerate(("<a>", "<b>")))
    a, b = (with_grams(lora, inputs(lora, seed + at), k=kept) for at, lora in enumerate((a, b)))
    assert a.grams and b.grams
    sums = [0.0, 0.0]
    for name, layer in b.layers.items():
        for at, grams in enumerate((a.grams, b.grams)):
            change = layer.dense().double()
            energy = float((change @ grams.of(name).dense() @ change.T).trace())
            assert answer(layer, grams.of(name)) == pytest.approx(energy, rel=1e-6)
            sums[at] += energy
    assert crosstalk(a, b) == pytest.approx((sums[0] / sums[1]) ** 0.5, rel=1e-6)


def test_crosstalk_of_a_concept_with_itself_is_one_and_of_orthogonal_inputs_nothing() -> None:
    a = make("<a>", 0)
    assert crosstalk(a, a.renamed("<b>")) == pytest.approx(1)
    layer = a.layers[QUERY]
    only = {QUERY: layer.with_down(torch.eye(12)[:2])}
    axes = torch.eye(12)
    one, other = (replace(a, layers=only, grams=None) for _ in range(2))
    one = with_grams(one, {QUERY: axes[:, :2]})
    other = with_grams(other, {QUERY: axes[:, 5:]})
    assert crosstalk(other, one) == 0.0
    assert crosstalk(one, other) is None, "a silent listener has no share"


def test_no_crosstalk_without_grams() -> None:
    a, b = make("<a>", 0), replace(make("<b>", 1), grams=None)
    assert crosstalk(a, b) is None and crosstalk(b, a) is None
    found = inspect((a, b))
    assert found.solved == "" and found.pairs[0].summed is None and found.pairs[0].solved is None


def test_row_blocks_of_one_scheme_share_nothing(blocks: Stack) -> None:
    found = inspect(blocks)
    for pair in found.pairs:
        assert (pair.layers, pair.shared_rows, pair.cosine) == (3, 0, 0.0)
        assert pair.solved and pair.summed
    assert all((layer.shared_rows, layer.cosine, layer.conflicts) == (0, 0.0, 0.0) for layer in found.layers)
    assert found.solved == "fused"


def test_plain_loras_share_every_row(plain: Stack) -> None:
    found = inspect(plain)
    assert found.solved == "gradient_fusion"
    assert {pair.shared_rows for pair in found.pairs} == {320 + 320 + 64}
    cosines, conflicts = layer_cosines(plain), layer_sign_conflicts(plain)
    assert {layer.name: (layer.cosine, layer.conflicts) for layer in found.layers} == {
        name: (cosines[name], conflicts[name]) for name in cosines
    }


def test_the_figures_after_fusing_are_those_of_the_fused_stack(blocks: Stack) -> None:
    solved = fused(blocks)
    found = inspect(blocks)
    assert found.pairs[0].solved == pytest.approx((crosstalk(solved[0], solved[1]), crosstalk(solved[1], solved[0])))
    assert max(found.pairs[0].solved or ()) < max(found.pairs[0].summed or ())


def test_a_concept_s_figures(blocks: Stack) -> None:
    weak = blocks[1].with_strength(0.5)
    first, second = inspect((blocks[0], weak)).concepts
    assert (first.name, first.slot, first.layers, first.ranks, first.grams) == ("<c0>", 0, 3, (2, 2), True)
    whole = sum(float(layer.dense().double().square().sum()) for layer in weak.layers.values()) ** 0.5
    assert second.norm == pytest.approx(0.5 * whole)
    held = sum(count(layer.rows) for layer in weak.layers.values())
    assert second.rows == pytest.approx(held / (320 + 320 + 64))


@pytest.mark.parametrize("strengths", [(1.0, 1.0), (0.5, 2.0)])
def test_crosstalk_does_not_depend_on_strength(blocks: Stack, strengths: tuple[float, float]) -> None:
    a, b = (lora.with_strength(s) for lora, s in zip(blocks, strengths, strict=False))
    assert inspect((a, b)).pairs[0].summed == pytest.approx(inspect(blocks[:2]).pairs[0].summed)


def test_an_empty_stack_and_unlike_shapes_are_refused() -> None:
    with pytest.raises(ValueError, match="expected at least one concept"):
        inspect(())
    with pytest.raises(ValueError, match=r"expected \(320, 12\) for .* got \(64, 12\)"):
        inspect((make("<a>", 0), make("<b>", 1, replace(SMALL, shapes={QUERY: (64, 12)}))))


PAIR = PairFigures("<a>", "<b>", 3, 0, 0, 0.0, (HIGH_CROSSTALK * 2, 0.0), (LOW_CROSSTALK / 5, 0.0))
SHARING = replace(PAIR, shared_rows=9, shared_layers=2, cosine=0.25)
VERDICTS = [
    (
        PAIR,
        f"per_row will bleed (<b> answers to <a>'s inputs at {HIGH_CROSSTALK * 2:.0%} of its own); "
        "fused will not bleed",
    ),
    (PAIR, "Their rows are their own."),
    (replace(PAIR, summed=(0.0, HIGH_CROSSTALK * 2)), "per_row will bleed (<a> answers to <b>'s inputs"),
    (replace(PAIR, summed=(0.0, LOW_CROSSTALK * 0.9)), "per_row will not bleed"),
    (replace(PAIR, summed=(0.0, (LOW_CROSSTALK + HIGH_CROSSTALK) / 2)), "per_row may bleed"),
    (replace(PAIR, summed=None, solved=None), "cannot tell. Without Grams"),
    (replace(SHARING, summed=None, solved=None), "will bleed, as far as rows tell"),
    (SHARING, "They share 9 rows in 2 layers, at a mean cosine of 0.25"),
    (replace(PAIR, layers=0, cosine=None), "they change no weight in common"),
    (replace(SHARING, matched=False), "Layers that only one of them names may be the same under other names"),
    (replace(PAIR, layers=0, cosine=None, matched=False), "cannot tell. Their files name no weight in common"),
]  # fmt: skip


@pytest.mark.parametrize(("pair", "words"), VERDICTS)
def test_verdicts(pair: PairFigures, words: str) -> None:
    assert words in verdict(pair, "fused")


@pytest.mark.parametrize(
    ("interference", "words"),
    [
        (0.0, "stays"),
        (LOW_INTERFERENCE, "stays"),
        (LOW_INTERFERENCE + 0.01, "may"),
        (HIGH_INTERFERENCE - 0.01, "may"),
        (HIGH_INTERFERENCE, "will"),
        (9.0, "will"),
    ],
)
def test_outlooks(interference: float, words: str) -> None:
    assert outlook(interference).startswith(words)


def test_the_report_names_every_concept_and_the_worst_pair_first(blocks: Stack) -> None:
    found = inspect(blocks)
    report = text(found)
    for concept in found.concepts:
        assert f"  {concept.name}: slot {concept.slot}" in report
    worst = max(found.pairs, key=lambda pair: max(pair.summed or ()))
    places = {(pair.first, pair.second): report.index(f"{pair.first} and {pair.second}") for pair in found.pairs}
    assert min(places, key=lambda names: places[names]) == (worst.first, worst.second)
    assert "Over 3 common layers: mean cosine 0.000, signs conflict in 0.0% of the entries" in report


def test_the_table_has_a_line_for_each_weight(blocks: Stack) -> None:
    other = make("<x>", 5, replace(SMALL, shapes={QUERY: (320, 12), CONV: (40, 8, 3, 3)}))
    rows = list(csv.DictReader(io.StringIO(table(inspect((blocks[0], other))))))
    assert [row["layer"] for row in rows] == sorted([QUERY, KEY, TEXT, CONV])
    shapes = {row["layer"]: (row["shape"], row["concepts"]) for row in rows}
    assert shapes[QUERY] == ("320x12", "2") and shapes[CONV] == ("40x8x3x3", "1")
    assert all((row["<c0>"] == "") == (row["layer"] == CONV) for row in rows)


def colours(picture: Image.Image) -> set[tuple[int, ...]]:
    return {value for _, value in picture.getcolors(picture.width * picture.height) or ()}


def test_the_map_gives_each_concept_its_share_of_the_pixels() -> None:
    recipe = Recipe(Scheme(slots=4), {QUERY: (320, 4)})
    stack = tuple(recipe.make(f"<c{slot}>", slot, seed=slot) for slot in range(3))
    picture = report_picture(stack, inspect(stack))
    column = picture.crop((16, 34, 16 + 84, 34 + 320))
    counts = {value: number for number, value in column.getcolors(10**6) or ()}
    whole = 84 * 320
    for number in range(3):
        assert counts[colour(number)] == pytest.approx(whole / 4, rel=0.03)
    assert counts[FREE] == pytest.approx(whole / 4, rel=0.03)


def test_shared_rows_show_both_colours(plain: Stack) -> None:
    column = report_picture(plain[:2], inspect(plain[:2])).crop((16, 34, 100, 354))
    counts = {value: number for number, value in column.getcolors(10**6) or ()}
    assert counts[colour(0)] == counts[colour(1)] == 84 * 320 / 2


@pytest.mark.parametrize("number", [1, 2, 20])
def test_any_number_of_concepts_has_a_picture(number: int) -> None:
    recipe = Recipe(Scheme(slots=32), {QUERY: (320, 4)})
    stack = tuple(recipe.make(f"<c{slot}>", slot, seed=slot) for slot in range(number))
    assert {colour(at) for at in range(number)} <= colours(report_picture(stack, inspect(stack)))


def test_the_first_twenty_colours_differ() -> None:
    assert len({colour(number) for number in range(20)}) == 20


def test_the_slots_picture_shows_held_free_and_clashing(tmp_path: Path) -> None:
    recipe = Recipe(shapes={QUERY: (320, 4)})
    for name, slot in (("a", 0), ("b", 0), ("c", 5)):
        save(tmp_path / f"{name}.safetensors", recipe.make(f"<{name}>", slot))
    picture = slot_picture(tables(tmp_path))
    assert {FREE, (200, 30, 40), colour(2)} <= colours(picture)
    assert FREE not in colours(slot_picture([]))


def test_other_kinds_are_counted_and_said() -> None:
    mixed = Recipe().make("<a>").with_adapters({"x": Adapter("LoHa", {}), "y": Adapter("LoHa", {})})
    assert "and 2 LoHa layers, which are not looked at here" in text(inspect((mixed,)))
