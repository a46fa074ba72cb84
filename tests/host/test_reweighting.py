"""Strengths changed on a loaded model: always the bits of a fresh merge, and no more work than the change asks for."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import comfy.model_management
import comfy.model_patcher
import comfy.sd
import comfy.utils
import pytest
import torch
from blocklora.blocklora_core.concept.concept import BlockLoRA
from blocklora.blocklora_core.concept.keys import is_text
from blocklora.blocklora_core.concept.rows import Scheme
from blocklora.blocklora_core.files.io import save
from blocklora.blocklora_core.host.weights import reweighting
from blocklora.blocklora_core.host.weights.patching import apply_merge
from blocklora.blocklora_core.host.weights.reweighting import ReweightingPatcher
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.host.test_merging import in_dtype
from tests.host.tiny import CONTIGUOUS, INTERLEAVED, Base, make_lora, patched, same

EIGHTS = Scheme(slots=8)
Stack = tuple[BlockLoRA, ...]


@contextmanager
def session() -> Iterator[Callable[[Any], dict[str, torch.Tensor]]]:
    """Loads one MODEL after another, as the sampler does, and gives copies of its weights."""
    kept = []

    def load(patcher: Any) -> dict[str, torch.Tensor]:
        kept.append(patcher)
        comfy.model_management.load_models_gpu([patcher], force_full_load=True)
        return {name: weight.clone() for name, weight in patcher.model.state_dict().items()}

    try:
        yield load
    finally:
        comfy.model_management.unload_all_models()


class Counts:
    """How often the host patched a whole weight, and how many blocks were computed again."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.whole = self.blocks = 0
        whole, differing = comfy.model_patcher.ModelPatcher.patch_weight_to_device, reweighting._differing

        def count_whole(patcher: Any, key: str, *rest: Any, **named: Any) -> Any:
            self.whole += key in patcher.patches
            return whole(patcher, key, *rest, **named)

        def count_blocks(*adapters: Any) -> Any:
            found = list(differing(*adapters))
            self.blocks += len(found)
            return found

        monkeypatch.setattr(comfy.model_patcher.ModelPatcher, "patch_weight_to_device", count_whole)
        monkeypatch.setattr(reweighting, "_differing", count_blocks)

    def reset(self) -> None:
        self.whole = self.blocks = 0


@pytest.fixture
def counts(monkeypatch: pytest.MonkeyPatch) -> Counts:
    return Counts(monkeypatch)


def merged(base: Base, stack: Stack, model: Any = None, method: str = "per_row") -> Any:
    return apply_merge(stack, model or base.model, base.clip, method).model


def assert_patched_whole(counts: Counts, before: Any, after: Callable[[], Any]) -> None:
    """Loaded behind `before`, what `after` makes has the weights of a fresh one, and no block was patched."""
    fresh = as_bytes(patched(after()))
    with session() as load:
        load(before)
        counts.reset()
        assert same(as_bytes(load(after())), fresh)
    assert counts.whole > 0 == counts.blocks


def as_bytes(weights: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Weights whose dtype has no comparison can be compared as bytes."""
    return {name: weight.contiguous().view(torch.uint8) for name, weight in weights.items()}


def stack_of(base: Base, scheme: Scheme | None, slots: int = 15) -> Stack:
    return tuple(make_lora(base, f"<c{slot}>", slot, scheme) for slot in range(slots))


def with_strengths(stack: Stack, **strengths: float) -> Stack:
    return tuple(lora.with_strength(strengths.get(lora.concept.bare, 1.0)) for lora in stack)


@pytest.mark.parametrize("scheme", [CONTIGUOUS, INTERLEAVED], ids=["contiguous", "interleaved"])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_one_strength_of_fifteen_costs_its_rows_alone_and_gives_the_bits_of_a_fresh_merge(
    base: Base, counts: Counts, dtype: torch.dtype, scheme: Scheme
) -> None:
    model, stack = in_dtype(base.model, dtype), stack_of(base, scheme)
    changed = with_strengths(stack, c7=0.3)
    before, fresh = patched(model), patched(merged(base, changed, model))
    with session() as load:
        first = load(merged(base, stack, model))
        counts.reset()
        got = load(merged(base, changed, model))
    assert same(got, fresh) and not same(got, first)
    layers = sum(not is_text(name) for name in stack[7].layers)
    # A geglu projection is dealt out in two parts.
    assert counts.whole == 0 and layers <= counts.blocks <= 2 * layers
    assert same(dict(model.model.state_dict()), before), "unpatching restores the base"


def test_concepts_come_and_go_row_by_row(base: Base, counts: Counts) -> None:
    model, stack = in_dtype(base.model, torch.float16), stack_of(base, CONTIGUOUS)
    others = (with_strengths(stack, c3=0.0), with_strengths(stack, c0=0.0, c14=-1.0), stack[:5], stack)
    fresh = [patched(merged(base, other, model)) for other in others]
    with session() as load:
        load(merged(base, stack, model))
        counts.reset()
        for other, expected in zip(others, fresh, strict=True):
            assert same(load(merged(base, other, model)), expected)
    assert counts.whole == 0 < counts.blocks


@given(st.lists(st.lists(st.sampled_from([0.0, 0.25, 1.0, -0.5]), min_size=4, max_size=4), min_size=2, max_size=4))
@settings(max_examples=8, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_sequence_of_strengths_ends_in_the_bits_of_a_fresh_merge(base: Base, sequence: list[list[float]]) -> None:
    model, stack = in_dtype(base.model, torch.float16), stack_of(base, CONTIGUOUS, 4)
    stacks = [tuple(map(BlockLoRA.with_strength, stack, strengths)) for strengths in sequence]
    with session() as load:
        for each in stacks:
            got = load(merged(base, each, model))
    assert same(got, patched(merged(base, stacks[-1], model)))


def test_clip_is_brought_up_to_date_too(base: Base, counts: Counts) -> None:
    stack = stack_of(base, CONTIGUOUS, 3)
    changed = with_strengths(stack, c1=0.5)
    one, other = (apply_merge(each, base.model, base.clip, "per_row").clip.patcher for each in (stack, changed))
    fresh = patched(other, other.patches)
    with session() as load:
        load(one)
        counts.reset()
        got = load(apply_merge(changed, base.model, base.clip, "per_row").clip.patcher)
    assert all(torch.equal(got[name], value) for name, value in fresh.items())
    assert counts.whole == 0 < counts.blocks


def test_weights_that_something_else_patches_too_are_patched_whole(base: Base, tmp_path: Path, counts: Counts) -> None:
    path = save(tmp_path / "style.safetensors", make_lora(base, "<s>", 9, None))
    style = comfy.utils.load_torch_file(str(path), safe_load=True)
    stack = stack_of(base, CONTIGUOUS, 3)

    def chained(strength: float) -> Any:
        model = merged(base, with_strengths(stack, c1=strength))
        return comfy.sd.load_lora_for_models(model, None, style, 0.5, 0.0)[0]

    fresh = patched(chained(0.5))
    with session() as load:
        load(chained(1.0))
        counts.reset()
        got = load(chained(0.5))
        assert same(got, fresh) and counts.whole > 0 == counts.blocks
        counts.reset()
        assert same(load(chained(0.5)), fresh) and counts.whole == 0, "the same once more costs nothing"


def test_shared_rows_are_patched_whole(base: Base, counts: Counts) -> None:
    plain, block = make_lora(base, "<p>", 9, None), make_lora(base, "<c>", 1)
    stacks = (plain, block), (plain, block.with_strength(0.5))
    assert_patched_whole(
        counts, merged(base, stacks[0], method="task_sum"), lambda: merged(base, stacks[1], method="task_sum")
    )


def test_blocks_of_other_schemes_that_overlap_the_old_ones_are_patched_whole(base: Base, counts: Counts) -> None:
    one, other = (make_lora(base, "<a>", 1, CONTIGUOUS),), (make_lora(base, "<b>", 0, EIGHTS),)
    assert_patched_whole(counts, merged(base, one), lambda: merged(base, other))


def test_quantised_weights_are_patched_whole(base: Base, counts: Counts) -> None:
    model, stack = in_dtype(base.model, torch.float8_e4m3fn), stack_of(base, CONTIGUOUS, 2)
    changed = with_strengths(stack, c1=0.5)
    assert_patched_whole(counts, merged(base, stack, model), lambda: merged(base, changed, model))


def test_a_machine_that_rounds_otherwise_patches_whole(
    base: Base, counts: Counts, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reweighting, "_rounds_alike", lambda *_: False)
    stack = stack_of(base, CONTIGUOUS, 3)
    changed = with_strengths(stack, c1=0.5)
    assert_patched_whole(counts, merged(base, stack), lambda: merged(base, changed))


def low_vram(patcher: Any) -> None:
    patcher.model.model_lowvram = True


def other_weight(patcher: Any) -> None:
    name = next(iter(patcher.patches))
    comfy.utils.set_attr_param(patcher.model, name, torch.zeros_like(patcher.model.state_dict()[name]))


def other_uuid(patcher: Any) -> None:
    patcher.model.current_weight_patches_uuid = "another pack's"


def lost_backup(patcher: Any) -> None:
    name = next(iter(patcher.backup))
    comfy.utils.set_attr_param(patcher.model, name, patcher.backup.pop(name).weight)


@pytest.mark.parametrize("disturb", [low_vram, other_weight, other_uuid, lost_backup], ids=lambda one: one.__name__)
def test_whatever_is_not_as_it_was_left_takes_the_host_s_own_way(
    base: Base, counts: Counts, disturb: Callable[[Any], None]
) -> None:
    model, stack = in_dtype(base.model, torch.float16), stack_of(base, CONTIGUOUS, 3)
    changed = with_strengths(stack, c1=0.5)
    fresh = patched(merged(base, changed, model))
    with session() as load:
        first = merged(base, stack, model)
        load(first)
        disturb(first)
        counts.reset()
        assert same(load(merged(base, changed, model)), fresh)
    assert counts.blocks == 0 < counts.whole


def wrapper(patcher: Any) -> None:
    patcher.add_weight_wrapper(next(iter(patcher.patches)), lambda weight: weight)


def compute_type(patcher: Any) -> None:
    patcher.set_model_compute_dtype(torch.float32)


@pytest.mark.parametrize("change", [wrapper, compute_type], ids=lambda one: one.__name__)
def test_patchers_that_do_more_take_the_host_s_own_way(
    base: Base, counts: Counts, change: Callable[[Any], None]
) -> None:
    model, stack = in_dtype(base.model, torch.float16), stack_of(base, CONTIGUOUS, 3)
    with session() as load:
        load(merged(base, stack, model))
        second = merged(base, with_strengths(stack, c1=0.5), model)
        change(second)
        counts.reset()
        load(second)
    assert counts.blocks == 0 < counts.whole


def test_a_load_that_breaks_off_leaves_nothing_half_done(base: Base, monkeypatch: pytest.MonkeyPatch) -> None:
    model, stack = in_dtype(base.model, torch.float16), stack_of(base, CONTIGUOUS, 3)
    first, second = merged(base, stack, model), merged(base, with_strengths(stack, c1=0.5), model)
    fresh, calls = patched(first), []

    def failing(rows: torch.Tensor, _: Any) -> torch.Tensor:
        calls.append(rows)
        if len(calls) == 3:
            raise torch.OutOfMemoryError("no memory left")
        return torch.zeros_like(rows)

    with session() as load:
        load(first)
        with monkeypatch.context() as patch:
            patch.setattr(reweighting, "_rounds_alike", lambda *_: True)
            patch.setattr(reweighting, "_patched", failing)
            with pytest.raises(torch.OutOfMemoryError):
                load(second)
        assert same(load(first.clone()), fresh)


def test_only_the_host_s_plain_patchers_are_adopted(base: Base) -> None:
    class Other(comfy.model_patcher.ModelPatcher):  # type: ignore[misc]
        pass

    stack = stack_of(base, CONTIGUOUS, 1)
    assert type(merged(base, stack)) is ReweightingPatcher
    assert type(merged(base, stack).clone()) is ReweightingPatcher
    assert type(base.model) is comfy.model_patcher.ModelPatcher
    strange = Other(base.model.model, base.model.load_device, base.model.offload_device)
    assert type(merged(base, stack, strange)) is Other
