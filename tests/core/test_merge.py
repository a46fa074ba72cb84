from __future__ import annotations

import math
from dataclasses import replace
from itertools import permutations
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from blocklora_core.concept.adapters import Adapter
from blocklora_core.concept.concept import MOST_LETTERS, BlockLoRA, Stack
from blocklora_core.concept.layer import Layer
from blocklora_core.concept.rows import Scheme, index
from blocklora_core.files.io import load, save
from blocklora_core.merge import METHODS, OVERLAPS, Options, merge
from blocklora_core.merge.methods.fused import DAMPING, OWN_WEIGHT, fused
from blocklora_core.merge.naming import distinct
from blocklora_core.merge.overlap import Overlap
from tests.core.samples import CONV, GEGLU, KEY, QUERY, SHAPES, TEXT, Recipe, inputs, with_grams

MATRICES = [QUERY, KEY, GEGLU, TEXT]
NAMES = [f"<c{i}>" for i in range(15)]


def stack_of(n: int, recipe: Recipe | None = None) -> Stack:
    recipe = recipe or Recipe()
    return tuple(recipe.make(name, slot, seed=slot) for slot, name in enumerate(NAMES[:n]))


def gram_stack(n: int, k: int = 1000) -> Stack:
    return tuple(with_grams(lora, inputs(lora, seed), k) for seed, lora in enumerate(stack_of(n)))


def total(stack: Stack, name: str) -> Tensor:
    """The merge: plain sum of the members' changes of one weight."""
    return torch.stack([lora.layers[name].dense().double() for lora in stack if name in lora.layers]).sum(0)


@given(st.lists(st.floats(-2, 2).filter(lambda s: s != 0), min_size=1, max_size=6))
@settings(max_examples=25, deadline=None)
def test_per_row_is_the_dense_weighted_sum(strengths: list[float]) -> None:
    stack = stack_of(len(strengths))
    asked = tuple(lora.with_strength(s) for lora, s in zip(stack, strengths, strict=True))
    merged = merge(asked, "per_row")
    assert all(lora.strength == 1.0 and lora.strength_clip is None for lora in merged.members)
    for name in stack[0].layers:
        dense = sum(s * lora.layers[name].dense().double() for lora, s in zip(stack, strengths, strict=True))
        torch.testing.assert_close(total(merged.members, name), dense, rtol=1e-5, atol=1e-6)


def test_each_row_is_exactly_its_owners() -> None:
    stack = stack_of(15)
    merged = merge(stack, "per_row")
    for lora in stack:
        for name, layer in lora.layers.items():
            assert torch.equal(total(merged.members, name)[index(layer.rows)].float(), layer.delta())


@given(st.lists(st.floats(0.01, 3), min_size=1, max_size=8))
@settings(max_examples=25, deadline=None)
def test_affine_weights_sum_to_one(strengths: list[float]) -> None:
    stack = tuple(lora.with_strength(s) for lora, s in zip(stack_of(len(strengths)), strengths, strict=True))
    members = merge(stack, "affine").members
    for name in stack[0].layers:
        assert sum(lora.layers[name].scale for lora in members) == pytest.approx(1.0)


def test_affine_refuses_strengths_that_cancel() -> None:
    a, b = stack_of(2)
    with pytest.raises(ValueError, match="do not sum to 0"):
        merge((a, b.with_strength(-1.0)), "affine")


@pytest.mark.parametrize("strengths", [(0.7, 0.3, -1.0), (0.1, 0.2, -0.3)])
def test_affine_refuses_decimals_that_cancel(strengths: tuple[float, ...]) -> None:
    stack = tuple(lora.with_strength(s) for lora, s in zip(stack_of(3), strengths, strict=True))
    assert math.fsum(strengths)
    with pytest.raises(ValueError, match="do not sum to 0"):
        merge(stack, "affine")


def test_an_average_of_a_side_that_nobody_has_is_not_asked_for() -> None:
    stack = tuple(replace(lora.model_only(), strength_clip=0.0) for lora in stack_of(2))
    members = merge(stack, "affine").members
    assert {layer.scale for lora in members for layer in lora.layers.values()} == {0.5}


def test_clip_strength_governs_text_layers_only() -> None:
    (member,) = merge([stack_of(1)[0].with_strength(0.5, 2.0)], "per_row").members
    assert {name: layer.scale for name, layer in member.layers.items() if name in (QUERY, TEXT)} == {
        QUERY: 0.5,
        TEXT: 2.0,
    }
    (member,) = merge([stack_of(1)[0].with_strength(0.0, 2.0)], "per_row").members
    assert set(member.layers) == {TEXT}
    assert member.embeddings


@pytest.mark.parametrize("method", sorted(METHODS))
def test_order_does_not_matter(method: str) -> None:
    stack = gram_stack(3)
    sums = [{n: total(merge(p, method).members, n) for n in stack[0].layers} for p in permutations(stack)]
    for other in sums[1:]:
        for name, value in sums[0].items():
            torch.testing.assert_close(other[name], value, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("method", sorted(METHODS))
def test_a_member_at_strength_zero_takes_no_part(method: str) -> None:
    a, b, c = gram_stack(3)
    # Same slot as a: at strength 0 not even its rows count.
    ghost = with_grams(Recipe().make("<ghost>", 0, seed=9), inputs(a, 9)).with_strength(0.0)
    merged, expected = merge((a, ghost, b, c), method), merge((a, b, c), method)
    assert [lora.concept.name for lora in merged.members[:3]] == ["<c0>", "<c1>", "<c2>"]
    assert merged.concepts == 3
    assert "<ghost>" not in {lora.concept.name for lora in merged.members}
    for name in a.layers:
        assert torch.equal(total(merged.members, name), total(expected.members, name))
    assert any("<ghost>" in note and "strength 0" in note for note in merged.notes)


def test_everything_at_strength_zero_merges_to_nothing() -> None:
    assert merge([lora.with_strength(0.0) for lora in stack_of(2)]).members == ()


def dense_optimum(stack: Stack, found: list[dict[str, Tensor]], name: str, owner: int) -> Tensor:
    """argmin_D |(Delta W_i - D) X_i|^2 + sum_{j != i} |D X_j|^2 on the owner's rows, by least squares."""
    target = stack[owner].layers[name].delta().flatten(1).double()
    x = torch.cat([each[name] for each in found], 1)
    y = torch.cat([target @ each[name] * (j == owner) for j, each in enumerate(found)], 1)
    solution: Tensor = torch.linalg.lstsq(x.T, y.T).solution
    return solution.T


def test_fused_tends_to_the_least_squares_optimum() -> None:
    plain = stack_of(3)
    found = [inputs(lora, seed) for seed, lora in enumerate(plain)]
    stack = tuple(with_grams(lora, x) for lora, x in zip(plain, found, strict=True))
    distances = []
    for damping in (1e-2, 1e-4, 1e-9):
        members = fused(stack, damping, own_weight=1.0)
        worst = 0.0
        for name in MATRICES:
            for owner, lora in enumerate(members):
                best = dense_optimum(stack, found, name, owner)
                off = (lora.layers[name].delta().flatten(1).double() - best).norm() / best.norm()
                worst = max(worst, off.item())
        distances.append(worst)
    assert distances[0] > distances[1] > distances[2]
    assert distances[2] < 1e-3


@pytest.mark.parametrize(("asked", "weight"), [(0.0, OWN_WEIGHT), (10.0, 10.0)])
def test_fused_is_the_closed_form_with_its_own_weight(asked: float, weight: float) -> None:
    plain = stack_of(3)
    found = [inputs(lora, seed) for seed, lora in enumerate(plain)]
    stack = tuple(with_grams(lora, x) for lora, x in zip(plain, found, strict=True))
    members = merge(stack, "fused", options=Options(own_weight=asked)).members
    for name in MATRICES:
        layer = stack[1].layers[name]
        grams = [x[name] @ x[name].T / x[name].shape[1] for x in found]
        whole = torch.stack(grams).sum(0)
        delta = DAMPING * whole.trace() / len(whole) * torch.eye(len(whole), dtype=torch.float64)
        others = whole - grams[1]
        own = weight * grams[1] + delta
        expected = layer.down.flatten(1).double() @ own @ torch.linalg.inv(others + own)
        got = members[1].layers[name]
        torch.testing.assert_close(got.down.flatten(1).double(), expected, rtol=1e-3, atol=1e-4)
        assert torch.equal(got.up, layer.up)
        assert (got.rows, got.down.shape) == (layer.rows, layer.down.shape)


def test_fused_leaves_convolutions_as_trained_and_asks_no_gram_for_them() -> None:
    stack = gram_stack(3)
    assert all(lora.grams is not None and not lora.grams.covers([CONV]) for lora in stack)
    merged = merge(stack)
    assert merged.method == "fused" and merged.notes == ()
    for before, after in zip(stack, merged.members, strict=True):
        assert torch.equal(before.layers[CONV].down, after.layers[CONV].down)
        assert not torch.equal(before.layers[QUERY].down, after.layers[QUERY].down)


def test_concepts_of_convolutions_alone_need_no_grams() -> None:
    pair = stack_of(2, Recipe(shapes={CONV: SHAPES[CONV]}))
    assert merge(pair).method == "fused"
    assert torch.equal(total(merge(pair).members, CONV), total(pair, CONV))


def test_fused_is_deaf_to_the_others_inputs() -> None:
    stack = gram_stack(2)
    x = inputs(stack[0], 1)[QUERY]  # what concept 1 sees
    before = stack[0].layers[QUERY].delta().double() @ x
    after = merge(stack, "fused").members[0].layers[QUERY].delta().double() @ x
    assert after.norm() < 0.8 * before.norm()


def test_fused_leaves_inputs_that_no_concept_has_shown_as_they_were_trained() -> None:
    a, b = stack_of(2)
    size = a.layers[QUERY].in_features
    seen, unseen = torch.eye(size, dtype=torch.float64)[:, : size // 2], torch.eye(size, dtype=torch.float64)[:, -1]
    a, b = (with_grams(lora.with_layers({QUERY: lora.layers[QUERY]}), {QUERY: seen}) for lora in (a, b))
    before, after = a.layers[QUERY].delta().double(), fused((a, b))[0].layers[QUERY].delta().double()
    torch.testing.assert_close(after @ unseen, before @ unseen, rtol=1e-3, atol=1e-3)
    # What both see alike is divided between them, the own counting OWN_WEIGHT times.
    share = (after @ seen).norm() / (before @ seen).norm()
    assert float(share) == pytest.approx(OWN_WEIGHT / (OWN_WEIGHT + 1), abs=0.01)


def test_packed_grams_never_blow_a_concept_up() -> None:
    for seed in range(5):
        stack = tuple(with_grams(lora, inputs(lora, seed), k=1) for lora in stack_of(1))
        twin = tuple(with_grams(lora, inputs(lora, seed + 50), k=1) for lora in stack_of(2))[1:]
        before, after = stack[0], fused(stack + twin)[0]
        for name, layer in before.layers.items():
            assert after.layers[name].down.norm() < 2 * layer.down.norm()


def test_fused_multiplies_strengths_and_keeps_lone_layers() -> None:
    a, b = gram_stack(2)
    alone = b.with_layers({KEY: b.layers[KEY]})
    full = merge((a, alone), "fused").members[0]
    half = merge((a.with_strength(0.5), alone), "fused").members[0]
    torch.testing.assert_close(half.layers[KEY].dense(), 0.5 * full.layers[KEY].dense())
    assert full.layers[QUERY].down is a.layers[QUERY].down
    assert not torch.equal(full.layers[KEY].down, a.layers[KEY].down)


@pytest.mark.parametrize("grams", [True, False])
def test_a_single_member_stays_as_it_is(grams: bool) -> None:
    lora = gram_stack(1)[0] if grams else stack_of(1)[0]
    for method in ("fused", "auto"):
        (member,) = merge([lora], method).members
        assert all(torch.equal(member.layers[n].down, layer.down) for n, layer in lora.layers.items())


def test_fused_with_few_eigenpairs_stays_near_the_exact_solve() -> None:
    exact, short = merge(gram_stack(3), "fused").members, merge(gram_stack(3, k=6), "fused").members
    for name in exact[0].layers:
        assert total(short, name).isfinite().all()
    assert (total(short, QUERY) - total(exact, QUERY)).norm() < total(exact, QUERY).norm()


def test_fused_survives_inputs_without_energy() -> None:
    a, b = stack_of(2)
    silent = {name: torch.zeros_like(x) for name, x in inputs(a, 0).items()}
    members = merge((with_grams(a, silent), with_grams(b, silent)), "fused").members
    for name, layer in members[0].layers.items():
        torch.testing.assert_close(layer.down, a.layers[name].down)


def test_auto_takes_fused_only_where_every_member_has_grams() -> None:
    a, b = gram_stack(2)
    assert merge((a, b)).method == "fused"
    merged = merge((a, stack_of(2)[1]))
    assert merged.method == "per_row"
    assert any("<c1>" in note and "no Grams" in note for note in merged.notes)


@pytest.mark.parametrize(
    ("overlap", "method"), [("error", "gradient_fusion"), ("share", "fused"), ("priority", "fused")]
)
def test_auto_takes_gradient_fusion_where_rows_are_shared(overlap: Overlap, method: str) -> None:
    a, b = (with_grams(lora, inputs(lora, at)) for at, lora in enumerate(same_slot()[:2]))
    merged = merge((a, b), overlap=overlap)
    assert merged.method == method and merged.shared_rows
    assert any("rows in" in note for note in merged.notes)


def test_fused_names_who_lacks_grams() -> None:
    with pytest.raises(ValueError, match=r"fused: expected every file .* <c1> \(c1.safetensors\)\. Give them"):
        merge((gram_stack(1)[0], stack_of(2)[1]), "fused")


def test_grams_of_another_size_are_refused() -> None:
    a, b = gram_stack(2)
    wide = Recipe(shapes={QUERY: (40, 14)}).make("<wide>", 5)
    wrong = replace(b, layers={QUERY: wide.layers[QUERY]})
    with pytest.raises(ValueError, match="14 features"):
        fused((replace(a, layers={QUERY: wide.layers[QUERY]}), wrong))


def same_slot() -> Stack:
    recipe = Recipe(scheme=Scheme(slots=2))
    return (recipe.make("<a>", 0, seed=1), recipe.make("<b>", 0, seed=2), recipe.make("<c>", 1, seed=3))


def test_overlap_error_names_concepts_layers_and_rows() -> None:
    with pytest.raises(ValueError, match=r"<a> \(a.safetensors\) and <b> \(b.safetensors\)") as caught:
        merge(same_slot())
    text = str(caught.value)
    assert "5 layers" in text
    assert "rows 0-11 (12 in all) of lora_te_" in text
    assert "share" in text
    assert "priority" in text


def test_overlap_is_judged_by_rows_not_by_slot_number() -> None:
    shapes = {QUERY: (320, 4)}
    a = Recipe(Scheme(slots=16), shapes).make("<a>", 1)
    apart = Recipe(Scheme(slots=32), shapes).make("<b>", 1)
    across = Recipe(Scheme(slots=32), shapes).make("<b>", 2)
    assert merge((a, apart)).shared_rows == 0
    with pytest.raises(ValueError, match="rows 20-29"):
        merge((a, across))


def test_share_splits_a_row_among_those_who_hold_it() -> None:
    a, b, c = same_slot()
    merged = merge((a, b, c), "per_row", "share")
    for name in a.layers:
        expected = total((a, b), name) / 2 + c.layers[name].dense()
        torch.testing.assert_close(total(merged.members, name), expected)
    assert merged.shared_rows == sum(len(index(layer.rows)) for layer in a.layers.values())
    assert any("policy: share" in note for note in merged.notes)


def test_priority_leaves_the_row_to_the_earlier() -> None:
    a, b, c = same_slot()
    for first, second in ((a, b), (b, a)):
        merged = merge((first, second, c), "per_row", "priority")
        for name in a.layers:
            expected = total((first, c), name)
            torch.testing.assert_close(total(merged.members, name), expected)


def test_plain_loras_hold_every_row() -> None:
    plain = Recipe(scheme=None).make("<plain>", seed=5)
    a = stack_of(1)[0]
    with pytest.raises(ValueError, match=r"<plain>: a plain LoRA holds every row"):
        merge((a, plain), "per_row")
    merged = merge((a, plain), overlap="share")
    layer = a.layers[QUERY]
    owned = total(merged.members, QUERY)[index(layer.rows)]
    expected = (layer.delta() + plain.layers[QUERY].dense()[index(layer.rows)]) / 2
    torch.testing.assert_close(owned.float(), expected)


@pytest.mark.parametrize("policy", OVERLAPS)
def test_no_policy_touches_disjoint_rows(policy: str) -> None:
    stack = stack_of(4)
    merged = merge(stack, "per_row", policy)  # type: ignore[arg-type]
    assert all(torch.equal(total(merged.members, n), total(stack, n)) for n in stack[0].layers)
    assert merged.shared_rows == 0


def rebased(lora: BlockLoRA, base: str) -> BlockLoRA:
    return replace(lora, base=base)


def test_impossible_stacks_are_refused() -> None:
    a, _ = stack_of(2)
    other_shape = Recipe(shapes={QUERY: (40, 13)}).make("<b>", 3)
    for stack, message in [
        ((), "empty stack"),
        ((a, other_shape), "different base models"),
    ]:
        with pytest.raises(ValueError, match=message):
            merge(stack)


@pytest.mark.parametrize(("base", "notes"), [("sdxl", 1), ("", 0), ("sd15-26M", 0), ("sd15", 0)])
def test_a_base_s_name_that_contradicts_weights_that_fit_is_a_note(base: str, notes: int) -> None:
    a, b = stack_of(2)
    merged = merge((a, rebased(b, base)), "per_row")
    found = [note for note in merged.notes if "name different bases" in note]
    assert len(found) == notes and merged.concepts == 2
    assert all(b.label in note and base in note for note in found)


def test_unknown_methods_and_policies_are_refused() -> None:
    with pytest.raises(ValueError, match=r"expected auto or one of fused, per_row, affine, .*, got 'swap'"):
        merge(stack_of(1), "swap")
    with pytest.raises(ValueError, match="error, share, priority, got 'ignore'"):
        merge(stack_of(1), overlap="ignore")  # type: ignore[arg-type]


@pytest.mark.parametrize("method", sorted(set(METHODS) - {"ties", "knots"}))
def test_fifteen_files_merge_to_the_sum_of_their_blocks(tmp_path: Path, method: str) -> None:
    paths = [save(tmp_path / f"{i}.safetensors", lora) for i, lora in enumerate(gram_stack(15, k=4))]
    stack = tuple(map(load, paths))
    merged = merge(stack, method)
    assert len(merged.members) == 15
    assert merged.shared_rows == 0
    for name in stack[0].layers:
        whole = total(merged.members, name)
        assert whole.isfinite().all()
        for lora in merged.members:
            layer = lora.layers[name]
            torch.testing.assert_close(whole[index(layer.rows)].float(), layer.delta(), rtol=0, atol=0)


LETTERS = st.from_regex(r"<?[aAb2-]{1,4}>?", fullmatch=True)


@given(st.lists(LETTERS, min_size=1, max_size=8))
def test_names_that_clash_get_names_of_their_own(names: list[str]) -> None:
    stack = tuple(Recipe(shapes={}).make(name, i) for i, name in enumerate(names))
    named, notes = distinct(stack)
    folded = [lora.concept.name.casefold() for lora in named]
    assert len(set(folded)) == len(names)
    given_names = [name.casefold() for name in names]
    changed = [i for i, lora in enumerate(named) if lora.concept.name != names[i]]
    assert len(notes) == len(changed)
    for i, name in enumerate(given_names):
        # The first that was given a name keeps it; no other takes it.
        assert (i in changed) == (name in given_names[:i])
        assert i not in changed or folded[i] not in given_names
    assert [lora.concept for lora in distinct(stack)[0]] == [lora.concept for lora in named]


def test_the_second_of_a_name_is_numbered_and_the_report_says_so() -> None:
    a = Recipe().make("<ada>", 0)
    others = [Recipe().make(name, slot) for slot, name in ((1, "<Ada>"), (2, "<ada-2>"), (3, "<ada>"))]
    merged = merge((a, *others), "per_row")
    assert [lora.concept.name for lora in merged.members] == ["<ada>", "<Ada-3>", "<ada-2>", "<ada-4>"]
    assert [note for note in merged.notes if "<Ada-3>" in note and "ada.safetensors" in note]
    off = merge((a.with_strength(0.0), *others), "per_row")
    assert [lora.concept.name for lora in off.members] == ["<Ada>", "<ada-2>", "<ada-3>"]


def test_a_name_too_long_for_a_number_is_told_with_its_file() -> None:
    name = f"<{'a' * (MOST_LETTERS - 2)}>"
    twins = tuple(replace(Recipe().make(name, slot), source=f"{slot}.safetensors") for slot in (0, 1))
    with pytest.raises(ValueError, match=r"1\.safetensors: another concept has its name, .* at most 512 letters"):
        distinct(twins)


def loha(fixed: bool = True) -> Adapter:
    words = {f"hada_w{i}_{side}": torch.ones(1) for i in (1, 2) for side in "ab"}
    return Adapter("LoHa", words) if fixed else Adapter("DoRA of LoHa", {**words, "dora_scale": torch.ones(1)})


def adapted(adapter: Adapter, *names: str) -> BlockLoRA:
    return Recipe(scheme=None, shapes={}).make("<style>").with_adapters(dict.fromkeys(names, adapter))


WEIGHING = {"per_row": 0.5, "task_sum": 1.0, "orthogonal": 0.3, "affine": 1 / 3, "weighted_average": 1 / 3}


@pytest.mark.parametrize(("method", "strength"), WEIGHING.items())
def test_adapters_ride_along_at_the_strength_of_their_concept(method: str, strength: float) -> None:
    a = Recipe(shapes={KEY: SHAPES[KEY]}).make("<a>")
    merged = merge((a, adapted(loha(), QUERY, TEXT).with_strength(0.5, 0.0)), method, options=Options(scale=2.0))
    (adapter,) = merged.members[1].adapters.values()
    assert set(merged.members[1].adapters) == {QUERY}, "at strength 0 it takes no part"
    assert adapter.strength == pytest.approx(strength)
    assert merged.members[1].strength == 1.0


def test_auto_does_not_fuse_what_has_no_grams() -> None:
    merged = merge((*gram_stack(2), adapted(loha(), "lora_unet_elsewhere")))
    assert merged.method == "per_row"
    assert any("<style>" in note and "no Grams" in note for note in merged.notes)


@pytest.mark.parametrize("method", ["per_row", "ties"])
def test_adapters_in_the_way_become_layers_or_say_why_not(method: str) -> None:
    (a,) = stack_of(1)
    layer = Layer.of_dense(torch.ones(SHAPES[QUERY]))
    merged = merge((a, adapted(loha(), QUERY)), method, "share", convert=lambda *_: layer)
    assert not any(lora.adapters for lora in merged.members)
    for adapter, convert in ((loha(fixed=False), lambda *_: layer), (loha(), None)):
        with pytest.raises(ValueError, match=rf"{method} .*<style>.*{QUERY} by a .*LoHa.*task_sum"):
            merge((a, adapted(adapter, QUERY)), method, "share", convert=convert)
