"""LoRA Switch and Composite on the host's own sampling."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import comfy.model_management
import comfy.sample
import comfy.samplers
import pytest
import torch
from blocklora.blocklora_core.concept.concept import BlockLoRA
from blocklora.blocklora_core.concept.keys import is_text
from blocklora.blocklora_core.files import load
from blocklora.blocklora_core.host.sample.modes import MODES, apply_mode, fresh_control, step_of
from blocklora.blocklora_core.host.weights.patching import apply_merge

from tests.foreign_files import write
from tests.host.tiny import Base, adaptable, make_lora, patched, same

STEPS = 4


def unet_only(lora: BlockLoRA) -> BlockLoRA:
    return lora.with_layers({stem: layer for stem, layer in lora.layers.items() if not is_text(stem)})


@pytest.fixture(scope="module")
def pair(base: Base) -> tuple[BlockLoRA, BlockLoRA]:
    return unet_only(make_lora(base, "<a>", 1)), unet_only(make_lora(base, "<b>", 2, scheme=None))


def sampled(base: Base, model: Any, callback: Any = None, steps: int = STEPS, cfg: float = 3.0) -> torch.Tensor:
    """What KSampler does, from a fixed noise, prompted by the base's CLIP."""
    with torch.inference_mode():
        prompts = []
        for text in ("a man", ""):
            cross, pooled = base.clip.encode_from_tokens(base.clip.tokenize(text), return_pooled=True)
            prompts.append([[cross, {"pooled_output": pooled}]])
        noise = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(3))
        return comfy.sample.sample(
            model, noise, steps, cfg, "euler", "normal", *prompts, torch.zeros_like(noise), seed=3,
            callback=callback, disable_pbar=True,
        )  # fmt: skip


def trajectory(base: Base, model: Any) -> list[torch.Tensor]:
    """The clean estimates after each step."""
    seen: list[torch.Tensor] = []
    sampled(base, model, lambda _step, clean, _x, _total: seen.append(clean.clone()))
    return seen


def merged(base: Base, lora: BlockLoRA) -> Any:
    return apply_merge((lora,), base.model, base.clip, "per_row").model


def near(a: torch.Tensor, b: torch.Tensor) -> bool:
    return torch.allclose(a, b, rtol=1e-3, atol=1e-3 * float(b.abs().max()))


def hooks(base: Base) -> int:
    return sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in base.model.model.modules())


@pytest.fixture(autouse=True)
def untouched(base: Base) -> Iterator[None]:
    before = patched(base.model)
    yield
    assert hooks(base) == 0 and base.model.patches == {}
    assert all(not wrappers for wrappers in base.model.wrappers.values())
    assert same(before, patched(base.model))


def test_switch_alone_is_that_concept_merged(base: Base, pair: tuple[BlockLoRA, BlockLoRA]) -> None:
    for lora in pair:
        got = sampled(base, apply_mode((lora,), base.model, base.clip, "switch").model)
        assert near(got, sampled(base, merged(base, lora)))
        assert not near(got, sampled(base, base.model))


def test_switch_takes_turns(base: Base, pair: tuple[BlockLoRA, BlockLoRA]) -> None:
    first, second = pair
    turns = trajectory(base, apply_mode(pair, base.model, base.clip, "switch", every=2).model)
    alone = trajectory(base, apply_mode((first,), base.model, base.clip, "switch").model)
    assert [torch.equal(a, b) for a, b in zip(turns, alone, strict=True)] == [True, True, False, False]
    # From the third step on, it is the second concept from where the first has led.
    swapped = trajectory(base, apply_mode((second, first), base.model, base.clip, "switch", every=2).model)
    assert not torch.equal(swapped[0], turns[0])
    assert near(swapped[0], trajectory(base, merged(base, second))[0])


@pytest.mark.parametrize("copies", [1, 2, 3])
def test_composite_of_copies_is_that_concept(base: Base, pair: tuple[BlockLoRA, BlockLoRA], copies: int) -> None:
    lora = pair[1]
    stack = tuple(lora.renamed(f"<c{number}>") for number in range(copies))
    got = sampled(base, apply_mode(stack, base.model, base.clip, "composite").model)
    assert near(got, sampled(base, merged(base, lora)))


def test_composite_is_the_mean_of_predictions(base: Base, pair: tuple[BlockLoRA, BlockLoRA]) -> None:
    both = trajectory(base, apply_mode(pair, base.model, base.clip, "composite").model)[0]
    alone = [trajectory(base, merged(base, lora))[0] for lora in pair]
    assert near(both, (alone[0] + alone[1]) / 2)
    assert not near(both, alone[0])


def test_strengths_count_and_zero_takes_no_part(base: Base, pair: tuple[BlockLoRA, BlockLoRA]) -> None:
    first, second = pair
    half = apply_mode((first.with_strength(0.5), second.with_strength(0.0)), base.model, base.clip, "composite")
    assert [lora.concept.name for lora in half.members] == ["<a>"]
    assert near(sampled(base, half.model), sampled(base, merged(base, first.with_strength(0.5))))


def test_prompts_know_all_names_and_text_layers_are_averaged(base: Base) -> None:
    lora = make_lora(base, "<a>", 1)
    texts = [stem for stem in lora.layers if is_text(stem)]
    result = apply_mode((lora, replace(lora.renamed("<b>"))), base.model, base.clip, "switch")
    assert result.text_layers == 2 * len(texts) and result.clip is not base.clip
    alone = apply_merge((lora,), base.model, base.clip, "per_row").clip.patcher
    a, b = patched(result.clip.patcher, alone.patches), patched(alone, alone.patches)
    for name in b:
        torch.testing.assert_close(a[name], b[name], rtol=1e-4, atol=1e-4)
    for name in ("<a>", "<b>"):
        tokens = result.clip.tokenize(f"a {name}")["l"][0]
        assert any(isinstance(token, torch.Tensor) for token, *_ in tokens)


@pytest.mark.parametrize("mode", MODES)
def test_cancel_leaves_no_hook(base: Base, pair: tuple[BlockLoRA, BlockLoRA], mode: str) -> None:
    model = apply_mode(pair, base.model, base.clip, mode).model
    middle = next(module for name, module in base.model.model.named_modules() if name.endswith("attn2.to_out.0"))

    def cancel(*_: Any) -> None:
        assert hooks(base) > 1
        raise comfy.model_management.InterruptProcessingException

    handle = middle.register_forward_hook(cancel)
    try:
        with pytest.raises(comfy.model_management.InterruptProcessingException):
            sampled(base, model)
    finally:
        handle.remove()
    assert hooks(base) == 0


def test_other_wrappers_of_the_model_stay(base: Base, pair: tuple[BlockLoRA, BlockLoRA]) -> None:
    calls: list[float] = []

    def wrapper(apply: Any, args: Any) -> torch.Tensor:
        calls.append(float(args["timestep"][0]))
        return apply(args["input"], args["timestep"], **args["c"])

    model = base.model.clone()
    model.set_model_unet_function_wrapper(wrapper)
    got = sampled(base, apply_mode(pair, model, base.clip, "composite").model)
    assert len(calls) == STEPS
    assert torch.equal(got, sampled(base, apply_mode(pair, base.model, base.clip, "composite").model))


def test_every_prediction_gets_the_whole_control() -> None:
    control = {"input": [1, 2], "output": [3], "name": "x"}
    fresh_control(control)["input"].pop()
    assert control == {"input": [1, 2], "output": [3], "name": "x"}
    assert fresh_control(None) is None


def test_steps_are_told_by_the_noise_level() -> None:
    sigmas = torch.tensor([14.0, 7.0, 2.0, 0.5, 0.0])
    found = [step_of(torch.tensor([level]), sigmas) for level in (20.0, 14.0, 13.9995, 9.0, 7.0, 2.0, 1.0, 0.5, 0.1)]
    assert found == [0, 0, 0, 0, 1, 2, 2, 3, 3]
    with pytest.raises(ValueError, match="Use KSampler"):
        step_of(torch.tensor([1.0]), None)


@pytest.mark.parametrize(
    ("change", "message"),
    [({"mode": "both"}, "one of switch, composite"), ({"every": 0}, "at least 1"), ({"stack": ()}, "at least one")],
)
def test_wrong_settings_are_refused(
    base: Base, pair: tuple[BlockLoRA, BlockLoRA], change: dict[str, Any], message: str
) -> None:
    given: dict[str, Any] = {"stack": pair, "mode": "switch", "every": 5, **change}
    with pytest.raises(ValueError, match=message):
        apply_mode(given["stack"], base.model, base.clip, given["mode"], given["every"])


def of_other_kind(base: Base, folder: Path, *, dora: bool) -> BlockLoRA:
    """A LoHa on the UNet's attention, or a DoRA of one."""
    random, tensors = torch.Generator().manual_seed(5), {}
    for stem, (m, n) in adaptable(base).items():
        if stem.endswith(("to_v", "to_out_0")):
            for i in (1, 2):
                tensors[f"{stem}.hada_w{i}_a"] = torch.randn(m, 3, generator=random) * 0.5
                tensors[f"{stem}.hada_w{i}_b"] = torch.randn(3, n, generator=random) * 0.5
            if dora:
                tensors[f"{stem}.dora_scale"] = 1 + torch.randn(1, n, generator=random) * 0.2
    return load(write(folder / "other.safetensors", tensors))


@pytest.mark.parametrize("mode", MODES)
def test_a_loha_takes_its_turn_and_no_weight_is_patched(base: Base, tmp_path: Path, mode: str) -> None:
    lora = of_other_kind(base, tmp_path, dora=False)
    applied = apply_mode((lora,), base.model, base.clip, mode)
    assert applied.model.patches == {}
    got = sampled(base, applied.model)
    assert near(got, sampled(base, merged(base, lora))) and not near(got, sampled(base, base.model))


def test_what_depends_on_the_weight_is_refused(base: Base, tmp_path: Path) -> None:
    lora = of_other_kind(base, tmp_path, dora=True)
    with pytest.raises(ValueError, match=r"changes layers, and .* by a DoRA of LoHa"):
        apply_mode((lora,), base.model, base.clip, "switch")
