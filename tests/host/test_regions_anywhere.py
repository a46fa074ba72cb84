"""Regions on every architecture that the host knows, with its own text encoders and its own sampler."""

from __future__ import annotations

import gc
import threading
from functools import cache
from typing import Any

import comfy.model_management
import comfy.sample
import pytest
import torch
from blocklora.blocklora_core.host.regions.picture import OVERRIDE, Place, _on_grid
from blocklora.blocklora_core.host.regions.regional import RegionalSampling, _change_of, apply_regions
from blocklora.blocklora_core.host.regions.session import Session
from blocklora.blocklora_core.regions import Box, Region

from tests.host.architectures import KNOWN, build, latents_of
from tests.host.encoders import encoder_of

SCENE, ADA, BOB = "a photo of a man", "a dog in the night street, smiling, holding a cup of blue coffee", "a red house"
LEFT, RIGHT, ALL = Box(0, 0, 0.5, 1), Box(0.5, 0, 0.5, 1), Box(0, 0, 1, 1)

CLOSED = {name for name in KNOWN if name.startswith("pixart")}
"""Whose attention lets nobody in."""

OPEN = [name for name in KNOWN if name not in CLOSED]
UNETS = {"sd15", "sd20v", "sdxl"}
ONE_PASS = {*UNETS, "sd35", "flux", "flux_schnell", "chroma"}
"""Whose regions share a pass of the model."""

PASSES = [name for name in OPEN if name not in ONE_PASS]


class Bench:
    """One tiny model and its text side."""

    def __init__(self, name: str):
        self.name, self.model, clip = name, build(name), encoder_of(name)
        self.noise = torch.randn(1, *latents_of(name), generator=torch.Generator().manual_seed(5))
        with torch.inference_mode():
            self.scene, self.ada, self.bob = (
                clip.encode_from_tokens_scheduled(clip.tokenize(text)) for text in (SCENE, ADA, BOB)
            )

    @torch.inference_mode()
    def sampled(
        self, model: Any, positive: Any, negative: Any = None, cfg: float = 2.0, steps: int = 1
    ) -> torch.Tensor:
        found: torch.Tensor = comfy.sample.sample(
            model, self.noise, steps, cfg, "euler", "normal", positive, negative or self.scene,
            torch.zeros_like(self.noise), seed=5, disable_pbar=True,
        )  # fmt: skip
        return found

    def regional(self, *regions: Region, **settings: Any) -> Any:
        return apply_regions(self.model, RegionalSampling(regions, **settings))

    @property
    def effect(self) -> float:
        """How far a prompt moves the picture at most."""
        return float((self.sampled(self.model, self.ada) - self.sampled(self.model, self.scene)).abs().max())

    def near(self, one: torch.Tensor, other: torch.Tensor, share: float = 5e-3) -> bool:
        """By what a prompt does, and by float32's rounding of the picture."""
        rounding = 1e-6 * float(other.abs().max())
        assert self.effect > 20 * rounding
        return float((one - other).abs().max()) <= share * self.effect + rounding


@cache
def bench(name: str) -> Bench:
    return Bench(name)


def with_pooled_of(prompt: Any, other: Any) -> Any:
    """In a shared pass the one vector of a whole text is the sampler's prompt's."""
    ((text, extras),), ((_, others),) = prompt, other
    return [[text, {**extras, "pooled_output": others.get("pooled_output")}]]


@pytest.mark.parametrize("name", OPEN)
def test_one_region_over_all_is_the_plain_prompt(name: str) -> None:
    on = bench(name)
    found = on.sampled(on.regional(Region(ALL, on.ada, on.bob)), on.scene)
    prompts = (on.ada, on.bob)
    if name in ONE_PASS:
        prompts = tuple(with_pooled_of(prompt, on.scene) for prompt in prompts)
    assert on.near(found, on.sampled(on.model, *prompts), 0.02)


@pytest.mark.parametrize("name", OPEN)
def test_a_region_acts_on_its_half_most(name: str) -> None:
    """What moves in the other half comes by the picture's attention to itself, and in UNets by convolutions."""
    on = bench(name)
    plain, half = on.sampled(on.model, on.scene, cfg=1.0), on.noise.shape[-1] // 2
    for box, inside in ((LEFT, slice(None, half)), (RIGHT, slice(half, None))):
        moved = (on.sampled(on.regional(Region(box, on.ada)), on.scene, cfg=1.0) - plain).abs()
        total, own = float(moved.sum()), float(moved[..., inside].sum())
        assert total > 0 and own > (0.5 if name in UNETS else 0.75) * total, (own, total)


@pytest.mark.parametrize("name", KNOWN)
def test_the_network_decides_how_many_passes_there_are(name: str) -> None:
    shared = _change_of(bench(name).model.model.diffusion_model)
    assert (shared is not None) == (name in ONE_PASS)


@pytest.mark.parametrize("name", PASSES)
def test_the_same_prompt_everywhere_changes_nothing(name: str) -> None:
    """Not even where words read the picture, which in one pass see their region alone."""
    on = bench(name)
    same = on.regional(Region(LEFT, on.scene), Region(Box(0.3, 0.2, 0.5, 0.6), on.scene, feather=0.2))
    assert on.near(on.sampled(same, on.scene, on.bob), on.sampled(on.model, on.scene, on.bob))


@pytest.mark.parametrize("name", PASSES)
def test_an_override_of_attention_is_kept(name: str) -> None:
    on, calls = bench(name), []

    def override(attention: Any, *args: Any, **named: Any) -> Any:
        calls.append(1)
        return attention(*args, **named)

    model = on.model.clone()
    model.model_options["transformer_options"][OVERRIDE] = override
    found = on.sampled(apply_regions(model, RegionalSampling((Region(LEFT, on.ada),))), on.scene)
    assert calls and torch.equal(found, on.sampled(on.regional(Region(LEFT, on.ada)), on.scene))


@pytest.mark.parametrize("name", OPEN)
def test_nothing_is_left(name: str) -> None:
    on, threads = bench(name), threading.active_count()
    model = on.regional(Region(LEFT, on.ada), Region(RIGHT, on.bob))
    before = on.sampled(on.model, on.scene)
    first = on.sampled(model, on.scene, steps=2)
    assert torch.equal(first, on.sampled(model, on.scene, steps=2)), "queued again, it is the same picture"
    assert torch.equal(before, on.sampled(on.model, on.scene))
    assert on.model.model_options == {"transformer_options": {}} and not any(on.model.wrappers.values())
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in on.model.model.modules())
    gc.collect()
    assert not any(type(one) is Session for one in gc.get_objects())
    assert threading.active_count() == threads


@pytest.mark.parametrize("name", PASSES[:2])
def test_cancel_leaves_no_thread(name: str) -> None:
    on, threads = bench(name), threading.active_count()

    def cancel(*_args: Any, **_named: Any) -> Any:
        if len(calls) > 20:
            raise comfy.model_management.InterruptProcessingException
        calls.append(1)
        return _args[0](*_args[1:], **_named)

    calls: list[int] = []
    model = on.model.clone()
    model.model_options["transformer_options"][OVERRIDE] = cancel
    regional = apply_regions(model, RegionalSampling((Region(LEFT, on.ada), Region(RIGHT, on.bob))))
    with pytest.raises(comfy.model_management.InterruptProcessingException):
        on.sampled(regional, on.scene, steps=20)
    assert threading.active_count() == threads


@pytest.mark.parametrize("name", CLOSED)
def test_attention_that_lets_nobody_in_is_told(name: str) -> None:
    on = bench(name)
    with pytest.raises(ValueError, match=r"PixArtMS mixes parts of the picture beside .* Conditioning \(Set Mask\)"):
        on.sampled(on.regional(Region(LEFT, on.ada)), on.scene)


@pytest.mark.parametrize("name", PASSES[:1])
def test_text_of_another_model_is_refused(name: str) -> None:
    on = bench(name)
    with pytest.raises(ValueError, match="Encode it with the CLIP of this checkpoint"):
        on.sampled(on.regional(Region(LEFT, [[torch.zeros(1, 7, 17), {}]])), on.scene)


def test_a_grid_is_told_by_its_right_half() -> None:
    right = torch.zeros(3, 4, 6, dtype=torch.bool)
    right[..., 3:] = True
    tokens = torch.cat([torch.zeros(5, dtype=torch.bool), right.flatten(), torch.zeros(2, dtype=torch.bool)])
    assert _on_grid(tokens, (8, 12), 2) == Place(79, 5, 3, (4, 6))
    assert _on_grid(tokens, (8, 12), 1) is None and _on_grid(tokens, (8, 12), 4) is None
    tokens[3] = True
    assert _on_grid(tokens, (8, 12), 2) is None, "another token learnt of the right half"
