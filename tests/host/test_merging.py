"""A merge on a real ModelPatcher: the stock loader, the plain sum and the base model are the yardsticks."""

from __future__ import annotations

import copy
import weakref
from pathlib import Path
from typing import Any

import comfy.model_management
import comfy.model_patcher
import comfy.sd
import comfy.utils
import pytest
import torch
from blocklora.blocklora_core.concept.concept import BlockLoRA
from blocklora.blocklora_core.concept.keys import fused_parts, is_geglu, is_text
from blocklora.blocklora_core.concept.rows import Scheme, all_rows, count, index
from blocklora.blocklora_core.files.io import load, save
from blocklora.blocklora_core.host.weights.names import on_weights, weights_of
from blocklora.blocklora_core.host.weights.patching import Applied, NothingFitsError, apply_merge, resolve
from blocklora.blocklora_core.merge import Options

import nodes
from tests.host.dynamic import WANTED, patcher_of
from tests.host.tiny import CONTIGUOUS, Base, adaptable, in_use, loaded, make_lora, patched, same

FIFTEEN = 15


def expected_sum(base: Base, stack: list[BlockLoRA], weights: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The adapted ones of `weights` plus every concept's dense change, in float64."""
    total: dict[str, torch.Tensor] = {}
    for lora in stack:
        fitting = on_weights(lora, weights_of(base.model, base.clip)).lora
        for name, layer in fitting.layers.items():
            if name in weights:
                total[name] = total.get(name, weights[name].double()) + layer.dense().double()
    return total


def in_dtype(model: Any, dtype: torch.dtype) -> Any:
    """A MODEL of its own whose UNet has weights of `dtype`."""
    if WANTED:
        pytest.skip("the weights lie in a file, mapped into memory, of which there is no copy")
    config = model.model.model_config
    with torch.inference_mode(False):
        # Newer hosts' settings answer None to every name that they do not know, to copy's own, too.
        module = copy.deepcopy(model.model, {id(config): config}).to(dtype)
    return patcher_of(module)


def per_row(base: Base, *stack: BlockLoRA, **more: Any) -> Applied:
    return apply_merge(stack, base.model, base.clip, "per_row", **more)


@pytest.fixture(scope="module")
def fifteen(base: Base) -> list[BlockLoRA]:
    return [make_lora(base, f"<c{slot}>", slot) for slot in range(FIFTEEN)]


@pytest.mark.parametrize("scheme", [CONTIGUOUS, None], ids=["row block", "plain"])
def test_the_stock_loader_gives_the_weights_of_our_merge(base: Base, tmp_path: Path, scheme: Scheme | None) -> None:
    path = save(tmp_path / "c.safetensors", make_lora(base, "<c>", 3, scheme))
    stock_model, stock_clip = comfy.sd.load_lora_for_models(
        base.model, base.clip, comfy.utils.load_torch_file(str(path), safe_load=True), 1.0, 1.0
    )
    ours = per_row(base, load(path))
    plain, changed = patched(base.model), 0
    for stock, merged in ((stock_model, ours.model), (stock_clip.patcher, ours.clip.patcher)):
        a, b = patched(stock, merged.patches), patched(merged, merged.patches)
        for name in a:
            # The products have other shapes, so sums may round in another order.
            torch.testing.assert_close(b[name], a[name], rtol=1e-6, atol=1e-6)
            changed += name in plain and not torch.equal(plain[name], b[name])
    assert changed == ours.model_layers > 0


def test_the_stock_lora_loader_node_takes_our_file(base: Base, folders: Path) -> None:
    save(folders / "models" / "loras" / "c.safetensors", make_lora(base, "<c>", 3))
    model, clip = nodes.LoraLoader().load_lora(base.model, base.clip, "c.safetensors", 1.0, 1.0)
    texts = sum(map(is_text, adaptable(base)))
    assert len(model.patches) == len(adaptable(base)) - texts
    assert len(clip.patcher.patches) == texts


def test_only_the_slot_s_rows_change_in_geglu_both_halves(base: Base) -> None:
    before = patched(base.model)
    after = patched(per_row(base, make_lora(base, "<c>", 3)).model)
    name = next(name for name in before if is_geglu(name))
    held = index(CONTIGUOUS.rows(3, before[name].shape[0], fused_parts(name)))
    changed = (before[name] != after[name]).any(1).nonzero().flatten()
    assert changed.tolist() == sorted(held.tolist())
    assert (held < before[name].shape[0] // 2).sum() * 2 == len(held)


@pytest.mark.parametrize(("dtype", "steps"), [(torch.float32, 4), (torch.float16, 1)])
def test_fifteen_merged_are_the_base_plus_their_sum(
    base: Base, fifteen: list[BlockLoRA], dtype: torch.dtype, steps: int
) -> None:
    model = in_dtype(base.model, dtype)
    expected = expected_sum(base, fifteen, patched(model))
    got = patched(apply_merge(tuple(fifteen), model, base.clip, "per_row").model)
    assert expected
    for name, value in expected.items():
        limit = steps * torch.finfo(dtype).eps * value.abs().clamp(min=0.1)
        assert bool(((got[name].double() - value).abs() <= limit).all()), name


def test_fifteen_merged_on_clip_are_the_sum_too(base: Base, fifteen: list[BlockLoRA]) -> None:
    merged = per_row(base, *fifteen).clip.patcher
    expected = expected_sum(base, fifteen, patched(base.clip.patcher, merged.patches))
    got = patched(merged, merged.patches)
    assert expected.keys() == got.keys()
    for name, value in expected.items():
        torch.testing.assert_close(got[name].double(), value, rtol=1e-3, atol=1e-3)


def test_order_does_not_matter(base: Base, fifteen: list[BlockLoRA]) -> None:
    assert same(patched(per_row(base, *fifteen).model), patched(per_row(base, *reversed(fifteen)).model))


def test_unpatching_restores_the_base_bit_for_bit(base: Base, fifteen: list[BlockLoRA]) -> None:
    before = patched(base.model)
    merged = per_row(base, *fifteen).model
    with loaded(merged) as weights:
        assert not same(before, weights)
    assert same(before, dict(base.model.model.state_dict()))


def test_one_strength_changed_on_a_loaded_model_gives_the_bits_of_a_fresh_merge(
    base: Base, fifteen: list[BlockLoRA]
) -> None:
    before, (first, *others) = patched(base.model), fifteen
    stacks = [[first.with_strength(strength), *others] for strength in (1.0, 0.25, -0.5)]
    fresh = [patched(per_row(base, *stack).model) for stack in stacks]
    assert not same(fresh[0], fresh[1])
    merges = [per_row(base, *stack).model for stack in stacks]
    assert all(type(merged) is type(base.model) for merged in merges)
    for merged, expected in zip(merges, fresh, strict=True):
        comfy.model_management.load_models_gpu([merged], force_full_load=True)
        assert same(in_use(merged), expected)
    comfy.model_management.unload_all_models()
    assert same(dict(base.model.model.state_dict()), before)


@pytest.mark.parametrize("method", ["weighted_average", "task_sum", "ties", "knots", "orthogonal"])
def test_methods_for_shared_rows_reach_the_weights_and_leave_again(base: Base, method: str) -> None:
    stack = tuple(make_lora(base, name, slot, None) for slot, name in enumerate(("<a>", "<b>")))
    before = patched(base.model)
    applied = apply_merge(stack, base.model, base.clip, method, options=Options(density=0.3))
    changed = 0
    with loaded(applied.model) as weights:
        for name, value in before.items():
            held = [lora.layers[name].dense().double() for lora in applied.merged.members if name in lora.layers]
            expected = value.double() + sum(held)
            torch.testing.assert_close(weights[name].double(), expected, rtol=1e-5, atol=1e-5)
            changed += any(bool(change.any()) for change in held)
    assert changed > 0
    assert same(before, dict(base.model.model.state_dict()))
    assert applied.tokens == ("<a>", "<b>")


def test_what_was_given_is_untouched(base: Base, fifteen: list[BlockLoRA]) -> None:
    before = vars(base.clip.tokenizer).copy()
    applied = per_row(base, *fifteen)
    assert applied.model is not base.model and applied.clip is not base.clip
    assert base.model.patches == {} and base.clip.patcher.patches == {}
    assert vars(base.clip.tokenizer) == before


def test_counts_layers_and_calls_add_patches_once_a_side(
    base: Base, fifteen: list[BlockLoRA], monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[int] = []
    original = comfy.model_patcher.ModelPatcher.add_patches

    def spy(self: Any, patches: Any, *rest: Any) -> Any:
        calls.append(len(patches))
        return original(self, patches, *rest)

    monkeypatch.setattr(comfy.model_patcher.ModelPatcher, "add_patches", spy)
    applied = per_row(base, *fifteen)
    texts = sum(map(is_text, adaptable(base)))
    assert (applied.model_layers, applied.clip_layers) == (
        FIFTEEN * (len(adaptable(base)) - texts),
        FIFTEEN * texts,
    )
    assert len(calls) == 2


def test_shared_rows_take_another_call_and_lose_nothing(base: Base) -> None:
    pair = [make_lora(base, name, 1) for name in ("<a>", "<b>")]
    got = patched(per_row(base, *pair, overlap="share").model)
    expected = expected_sum(base, pair[:1], patched(base.model))
    for name, value in expected.items():
        torch.testing.assert_close(got[name].double(), value, rtol=1e-5, atol=1e-5)


def test_a_merge_on_a_merge_adds_up(base: Base) -> None:
    a, b = make_lora(base, "<a>", 1), make_lora(base, "<b>", 2)
    first = per_row(base, a)
    chained = apply_merge((b,), first.model, first.clip, "per_row")
    got, expected = patched(chained.model), patched(per_row(base, a, b).model)
    for name in expected:
        torch.testing.assert_close(got[name], expected[name], rtol=1e-6, atol=1e-6)


def test_refuses_a_file_with_no_layer_of_this_model(base: Base) -> None:
    lora = make_lora(base, "<c>", 1)
    strange = lora.renamed_layers({stem: f"lora_unet_nowhere_{stem}" for stem in lora.layers})
    with pytest.raises(NothingFitsError, match=r"none of its .* layers .* load that checkpoint"):
        per_row(base, strange)


def test_what_was_found_of_a_file_is_found_once_and_lives_as_long_as_the_file(base: Base) -> None:
    lora = make_lora(base, "<c>", 3)
    (first,), _ = resolve((lora,), base.model, base.clip)
    (again,), _ = resolve((lora,), base.model, base.clip)
    (weaker,), _ = resolve((lora.with_strength(0.5),), base.model, base.clip)
    assert first is again and (first.strength, weaker.strength) == (1.0, 0.5)
    gone = weakref.ref(lora)
    del lora
    assert gone() is None


def test_refuses_a_file_with_other_shapes(base: Base) -> None:
    lora = make_lora(base, "<c>", 1)
    stem, layer = next(iter(lora.layers.items()))
    rows = CONTIGUOUS.rows(1, 64)
    other = type(layer)(torch.zeros(count(rows), 4), layer.down, rows, 64)
    with pytest.raises(NothingFitsError, match=r"expected shape \(320, 320\), the layer's is \(64, 320\)"):
        per_row(base, lora.with_layers({stem: other}))


def test_reports_the_layers_that_the_model_has_not(base: Base) -> None:
    lora = make_lora(base, "<c>", 1)
    layer = next(iter(lora.layers.values()))
    more = lora.with_layers({**lora.layers, "lora_unet_nowhere": layer})
    applied = per_row(base, more)
    assert list(applied.unused.values()) == [["lora_unet_nowhere"]]
    assert applied.model_layers + applied.clip_layers == len(lora.layers)


def test_works_without_clip(base: Base) -> None:
    lora = make_lora(base, "<c>", 1)
    unet = lora.with_layers({stem: layer for stem, layer in lora.layers.items() if not is_text(stem)})
    applied = apply_merge((unet,), base.model, None, "per_row")
    assert applied.clip is None and applied.model_layers == len(unet.layers)


def test_the_plain_lora_holds_every_row(base: Base) -> None:
    lora = make_lora(base, "<c>", 1, None)
    assert all(layer.rows == all_rows(layer.out_features) for layer in lora.layers.values())
    with pytest.raises(ValueError, match="plain LoRA holds every row"):
        per_row(base, lora, make_lora(base, "<d>", 2))
