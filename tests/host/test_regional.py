"""Regional sampling through the stock sampler, on tiny models of every architecture that has it."""

from __future__ import annotations

import dataclasses
import gc
import weakref
from collections.abc import Callable, Iterator
from typing import Any

import comfy.hooks
import comfy.model_management
import comfy.sample
import comfy.samplers
import pytest
import torch
from blocklora.blocklora_core.host.regions.cross import project
from blocklora.blocklora_core.host.regions.joint import takes_longer_prompts
from blocklora.blocklora_core.host.regions.regional import KEY, RegionalSampling, apply_regions
from blocklora.blocklora_core.host.text.layerwise import LayerContext, cross_attention_blocks, read_layerwise
from blocklora.blocklora_core.regions import Box, Region

from tests.host.any_model import MODELS, build
from tests.host.dynamic import WANTED

UNETS, JOINT = ("sd15", "sd20-v", "sdxl"), ("sd3", "flux")
LEFT, RIGHT, ALL = Box(0, 0, 0.5, 1), Box(0.5, 0, 0.5, 1), Box(0, 0, 1, 1)
Prompt = list[list[Any]]


@pytest.fixture(scope="module")
def models() -> dict[str, Any]:
    return {name: build(name) for name in MODELS}


@pytest.fixture(autouse=True)
def _nothing_is_left(models: dict[str, Any]) -> Iterator[None]:
    """No test leaves a hook, a wrapper, an option or a patch on the models given."""
    yield
    for model in models.values():
        assert model.model_options == {"transformer_options": {}} and not any(model.wrappers.values())
        assert not model.patches and not model.object_patches
        assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.model.modules())


def prompt(name: str, seed: int, tokens: int = 7, **settings: Any) -> Prompt:
    random = torch.Generator().manual_seed(seed)
    pooled = torch.randn(1, MODELS[name][2], generator=torch.Generator().manual_seed(1))
    return [[torch.randn(1, tokens, 96, generator=random), {"pooled_output": pooled, **settings}]]


@torch.inference_mode()
def sample(
    name: str, model: Any, positive: Prompt, negative: Prompt | None = None, *, size: tuple[int, int] = (8, 8),
    batch: int = 1, cfg: float = 3.0, steps: int = 2, sampler: str = "euler", callback: Any = None,
) -> torch.Tensor:  # fmt: skip
    channels = 4 if name in UNETS else 16
    noise = torch.randn(batch, channels, *size, generator=torch.Generator().manual_seed(5))
    return comfy.sample.sample(
        model, noise, steps, cfg, sampler, "normal", positive, negative or prompt(name, 99), torch.zeros_like(noise),
        seed=5, callback=callback, disable_pbar=True,
    )  # fmt: skip


def regional(model: Any, *regions: Region, **settings: Any) -> Any:
    return apply_regions(model, RegionalSampling(regions, **settings))


def near(a: torch.Tensor, b: torch.Tensor, tolerance: float = 1e-4) -> bool:
    return torch.allclose(a, b, rtol=tolerance, atol=tolerance * float(b.abs().max()))


@pytest.mark.parametrize("name", [*UNETS, *JOINT])
@pytest.mark.parametrize("tokens", [7, 12])
def test_one_region_over_all_is_the_plain_prompt(models: dict[str, Any], name: str, tokens: int) -> None:
    """To rounding: the plain prompt is computed in one batch with the negative, or as one sequence without a bias."""
    own = prompt(name, 2, tokens)
    found = sample(name, regional(models[name], Region(ALL, own)), prompt(name, 1))
    plain = sample(name, models[name], own)
    assert near(found, plain) and not near(found, sample(name, models[name], prompt(name, 1)), 1e-3)


@pytest.mark.parametrize("name", [*UNETS, *JOINT])
def test_a_negative_over_all_is_the_plain_negative(models: dict[str, Any], name: str) -> None:
    own = prompt(name, 3, 9)
    found = sample(name, regional(models[name], Region(ALL, None, own)), prompt(name, 1))
    assert near(found, sample(name, models[name], prompt(name, 1), own))


@pytest.mark.parametrize("name", [*UNETS, *JOINT])
def test_without_prompts_it_is_the_plain_model_bit_for_bit(models: dict[str, Any], name: str) -> None:
    found = sample(name, regional(models[name], Region(LEFT)), prompt(name, 1))
    assert torch.equal(found, sample(name, models[name], prompt(name, 1)))


@pytest.mark.parametrize("name", UNETS)
def test_the_same_prompt_in_every_region_changes_nothing(models: dict[str, Any], name: str) -> None:
    """Not so in joint attention, where prompts read the picture, a region's its part alone."""
    own = prompt(name, 1)
    found = sample(name, regional(models[name], Region(LEFT, own), Region(RIGHT, own, feather=0.3)), own)
    assert near(found, sample(name, models[name], own))


class Watch:
    """Outputs of every cross-attention, before to_out, in the order of computing."""

    def __init__(self, model: Any):
        self.modules = cross_attention_blocks(model.model.diffusion_model)
        self.seen: list[torch.Tensor] = []

    def __enter__(self) -> list[torch.Tensor]:
        self.handles = [
            module.to_out.register_forward_pre_hook(lambda _module, args: self.seen.append(args[0].clone()))
            for module in self.modules.values()
        ]
        return self.seen

    def __exit__(self, *_: object) -> None:
        for handle in self.handles:
            handle.remove()


@pytest.mark.parametrize("name", UNETS)
def test_outside_regions_attention_is_the_base_s_bit_for_bit(models: dict[str, Any], name: str) -> None:
    """In the first layer, whose input is the same; in the uncond half of it everywhere."""
    first = prompt(name, 1)
    outputs = []
    for model in (models[name], regional(models[name], Region(LEFT, prompt(name, 2)))):
        with Watch(models[name]) as seen:
            sample(name, model, first, steps=1)
        outputs.append(seen[0].unflatten(1, (4, 4)))
    plain, ours = outputs
    assert torch.equal(plain[:, :, 2:], ours[:, :, 2:])
    assert torch.equal(plain[1], ours[1]) != torch.equal(plain[0], ours[0])
    changed = next(row for row in range(2) if not torch.equal(plain[row], ours[row]))
    assert not torch.isclose(plain[changed, :, :2], ours[changed, :, :2]).all(dim=-1).any()


def halves(name: str, **fields: Any) -> tuple[Region, Region]:
    return Region(LEFT, prompt(name, 2), **fields), Region(RIGHT, prompt(name, 3, 11), **fields)


@pytest.mark.parametrize("name", [*UNETS, *JOINT])
@pytest.mark.parametrize("size", [(8, 8), (9, 13), (6, 20)])
def test_any_size_and_batches(models: dict[str, Any], name: str, size: tuple[int, int]) -> None:
    model = regional(models[name], *halves(name, feather=0.1))
    both = sample(name, model, prompt(name, 1), size=size, batch=2)
    assert both.shape[-2:] == size and bool(both.isfinite().all())
    assert not near(both, sample(name, models[name], prompt(name, 1), size=size, batch=2), 1e-3)


@pytest.mark.parametrize("name", [*UNETS, *JOINT])
def test_each_picture_of_a_batch_is_as_alone(models: dict[str, Any], name: str) -> None:
    model = regional(models[name], *halves(name), Region(Box(0.2, 0.2, 0.5, 0.5), prompt(name, 4), prompt(name, 6, 9)))
    both = sample(name, model, prompt(name, 1), batch=2)
    assert near(both[:1], sample(name, model, prompt(name, 1)))


@pytest.mark.parametrize("name", [*UNETS, *JOINT])
def test_cond_and_uncond_together_or_apart(models: dict[str, Any], name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model = regional(models[name], *halves(name), Region(Box(0, 0, 1, 0.5), None, prompt(name, 6, 9)))
    together = sample(name, model, prompt(name, 1))
    monkeypatch.setattr(comfy.samplers, "can_concat_cond", lambda one, other: one is other)
    assert near(together, sample(name, model, prompt(name, 1)))


@pytest.mark.parametrize("name", [*UNETS, *JOINT])
def test_without_guidance_there_is_one_half(models: dict[str, Any], name: str) -> None:
    own = prompt(name, 2)
    found = sample(name, regional(models[name], Region(ALL, own, prompt(name, 4))), prompt(name, 1), cfg=1.0)
    assert near(found, sample(name, models[name], own, cfg=1.0))


@pytest.mark.parametrize("sampler", ["dpmpp_2m", "heun", "euler_ancestral", "uni_pc"])
def test_any_sampler(models: dict[str, Any], sampler: str) -> None:
    own = prompt("sd15", 2)
    found = sample("sd15", regional(models["sd15"], Region(ALL, own)), prompt("sd15", 1), sampler=sampler, steps=3)
    assert near(found, sample("sd15", models["sd15"], own, sampler=sampler, steps=3), 1e-3)


def test_several_prompts_of_the_sampler(models: dict[str, Any]) -> None:
    """Combined prompts are one half of guidance in several parts of the batch: each gets the regions."""
    own = prompt("sd15", 2)
    combined = [*prompt("sd15", 1), *prompt("sd15", 7)]
    found = sample("sd15", regional(models["sd15"], Region(ALL, own)), combined)
    assert near(found, sample("sd15", models["sd15"], own))


@pytest.mark.parametrize("name", ["sd15", "flux"])
def test_start_and_end(models: dict[str, Any], name: str) -> None:
    def estimates(model: Any) -> list[torch.Tensor]:
        seen: list[torch.Tensor] = []
        sample(name, model, prompt(name, 1), steps=4, callback=lambda _s, clean, *_: seen.append(clean.clone()))
        return seen

    plain, late = estimates(models[name]), estimates(regional(models[name], *halves(name), start=0.5))
    early, always = (estimates(regional(models[name], *halves(name), end=end)) for end in (0.5, 1.0))
    assert torch.equal(plain[0], late[0]) and not torch.equal(plain[-1], late[-1])
    assert torch.equal(early[0], always[0]) and not torch.equal(early[-1], always[-1])


@pytest.mark.parametrize("name", UNETS)
def test_keys_and_values_are_projected_once(models: dict[str, Any], name: str) -> None:
    model, calls = models[name], []
    layers = len(cross_attention_blocks(model.model.diffusion_model))

    def counting(module: Any, place: Any, region: int, side: Any, text: torch.Tensor) -> Any:
        calls.append((place, region, side))
        return project(module, place, region, side, text)

    patched = regional(model, *halves(name), Region(LEFT, None, prompt(name, 8)), project=counting)
    sample(name, patched, prompt(name, 1), steps=4)
    assert len(calls) == len(set(calls)) == layers * 3
    sample(name, patched, prompt(name, 1), steps=1)
    assert len(calls) == 2 * layers * 3, "and again in the next sampling, which may have other weights"


def test_weights_that_change_between_steps_are_read_at_each(models: dict[str, Any]) -> None:
    model = models["sd15"]
    patched = regional(model, Region(ALL, prompt("sd15", 2)))
    plain = sample("sd15", patched, prompt("sd15", 1))
    module = next(iter(cross_attention_blocks(model.model.diffusion_model).values()))
    calls = []
    handle = module.to_v.register_forward_hook(lambda _m, _a, out: calls.append(1) or out * (1 + len(calls)))
    try:
        changed = sample("sd15", patched, prompt("sd15", 1), steps=3)
    finally:
        handle.remove()
    assert len(calls) == 6 and not near(plain, changed)


def test_layerwise_prompts_give_each_layer_its_own(models: dict[str, Any]) -> None:
    model = models["sd15"].clone()
    count = len(cross_attention_blocks(model.model.diffusion_model))
    read_layerwise(model, count)
    layered, first = prompt("sd15", 2, 77 * count), prompt("sd15", 1, 77)
    seen = {}

    def watching(module: Any, place: Any, region: int, side: Any, text: torch.Tensor) -> Any:
        seen[place] = text.clone()
        return project(module, place, region, side, text)

    found = sample("sd15", regional(model, Region(ALL, layered), project=watching), first)
    assert near(found, sample("sd15", model, layered))
    for number, place in enumerate(cross_attention_blocks(model.model.diffusion_model)):
        assert torch.equal(seen[place], layered[0][0][:, 77 * number : 77 * (number + 1)])
    assert isinstance(model.model_options["transformer_options"]["patches"]["attn2_patch"][0], LayerContext)


def test_a_control_s_residuals_do_not_disturb(models: dict[str, Any]) -> None:
    """What ControlNet and T2I-Adapter give the model."""

    class Control:
        """The host's ControlBase, as far as sampling asks."""

        previous_controlnet = extra_hooks = None
        seen: list[int]

        def __init__(self) -> None:
            self.seen, self.multigpu_clones = [], {}  # the second for newer hosts

        def get_control(self, x: torch.Tensor, _t: Any, cond: Any, *_: Any) -> dict[str, list[torch.Tensor]]:
            self.seen.append(cond["c_crossattn"].shape[1])
            return {"middle": [torch.full((x.shape[0], 128, 4, 4), 0.5)], "input": [], "output": []}

        def pre_run(self, *_: Any) -> None: ...
        def cleanup(self) -> None: ...
        def get_models(self) -> list[Any]:
            return []

        def get_extra_hooks(self) -> list[Any]:
            return []

        def inference_memory_requirements(self, _dtype: Any) -> int:
            return 0

    own, control = prompt("sd15", 2), Control()
    model = regional(models["sd15"], Region(ALL, own))
    controlled = sample("sd15", model, prompt("sd15", 1, control=control, control_apply_to_uncond=True))
    expected = sample("sd15", models["sd15"], prompt("sd15", 2, control=control, control_apply_to_uncond=True))
    assert near(controlled, expected) and not near(controlled, sample("sd15", model, prompt("sd15", 1)))
    assert set(control.seen) == {7}


def test_another_pack_s_attention_is_kept(models: dict[str, Any]) -> None:
    """As image prompts do it: attn2_replace of some blocks, which adds to text attention."""
    from comfy.ldm.modules.attention import optimized_attention

    def adding(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, options: Any) -> torch.Tensor:
        return optimized_attention(q, k, v, options["n_heads"]) + q.flip(-1)

    own, model = prompt("sd15", 2), models["sd15"].clone()
    model.set_model_attn2_replace(adding, "middle", 0)
    model.set_model_attn2_replace(adding, "input", 4, 0)
    expected = sample("sd15", model, own)
    assert not near(expected, sample("sd15", models["sd15"], own))
    assert near(sample("sd15", regional(model, Region(ALL, own)), prompt("sd15", 1)), expected)
    after = regional(models["sd15"], Region(ALL, own))
    after.set_model_attn2_replace(adding, "middle", 0)
    after.set_model_attn2_replace(adding, "input", 4, 0)
    assert near(sample("sd15", after, prompt("sd15", 1)), expected)


@pytest.mark.parametrize("name", ["sd15", *JOINT])
def test_an_override_of_attention_is_kept(models: dict[str, Any], name: str) -> None:
    calls = []

    def override(attention: Any, *args: Any, **named: Any) -> torch.Tensor:
        calls.append(1)
        return attention(*args, **named)

    model = models[name].clone()
    model.model_options["transformer_options"]["optimized_attention_override"] = override
    found = sample(name, regional(model, *halves(name)), prompt(name, 1))
    assert calls and torch.equal(found, sample(name, regional(models[name], *halves(name)), prompt(name, 1)))


def test_other_patches_of_attention_s_input_are_kept(models: dict[str, Any]) -> None:
    own, model = prompt("sd15", 2), models["sd15"].clone()
    model.set_model_attn2_patch(lambda n, context, value, _options: (n * 20, context, value))
    expected = sample("sd15", model, own)
    assert not near(expected, sample("sd15", models["sd15"], own), 1e-3)
    assert near(sample("sd15", regional(model, Region(ALL, own)), prompt("sd15", 1)), expected)


@pytest.mark.skipif(WANTED, reason="for hooks the host makes a second patcher, of its loader nodes' models alone")
def test_a_lora_by_hooks_is_in_the_regions_too(models: dict[str, Any]) -> None:
    """Create Hook LoRA on the sampler's prompt: weights change between its part of the batch and the negative's."""
    random = torch.Generator().manual_seed(0)
    lora = {}
    for name, weight in models["sd15"].model.diffusion_model.state_dict().items():
        if name.endswith(("attn2.to_k.weight", "attn2.to_v.weight")):
            stem = f"diffusion_model.{name.removesuffix('.weight')}"
            lora[f"{stem}.lora_up.weight"] = torch.randn(weight.shape[0], 2, generator=random)
            lora[f"{stem}.lora_down.weight"] = torch.randn(2, weight.shape[1], generator=random) * 0.1

    def hooked(seed: int) -> Prompt:
        hooks = comfy.hooks.create_hook_lora(lora, 1.0, 0.0)
        found: Prompt = comfy.hooks.set_hooks_for_conditioning(prompt("sd15", seed), hooks)
        return found

    own = prompt("sd15", 2)
    expected = sample("sd15", models["sd15"], hooked(2), own)
    both = Region(ALL, own, own)
    assert near(sample("sd15", regional(models["sd15"], both), hooked(1), prompt("sd15", 9)), expected)
    assert not near(expected, sample("sd15", models["sd15"], own, own), 1e-3)


@pytest.mark.parametrize("name", ["sd15", "flux"])
def test_weights_of_another_precision(name: str) -> None:
    """The host casts them when a layer runs, as it does with those that it keeps out of a GPU's memory."""
    model, own = build(name, torch.float8_e4m3fn), prompt(name, 2)
    found = sample(name, regional(model, Region(ALL, own)), prompt(name, 1))
    assert near(found, sample(name, model, own))


def test_reference_pictures_beside_regions(models: dict[str, Any]) -> None:
    """Flux Kontext: further tokens behind the picture's."""
    references = {"reference_latents": [torch.randn(1, 16, 6, 4, generator=torch.Generator().manual_seed(7))]}
    own, model = prompt("flux", 2, **references), regional(models["flux"], Region(ALL, prompt("flux", 2)))
    found = sample("flux", model, prompt("flux", 1, **references), cfg=1.0)
    expected = sample("flux", models["flux"], own, cfg=1.0)
    # The reference reads the sampler's prompt, not the region's: near, and not the same.
    assert near(found, expected, 0.05) and not near(
        found, sample("flux", models["flux"], prompt("flux", 2), cfg=1.0), 1e-3
    )


def test_two_regional_samplings_take_turns(models: dict[str, Any]) -> None:
    one, two = prompt("sd15", 2), prompt("sd15", 3)
    chained = regional(regional(models["sd15"], Region(ALL, one), end=0.5), Region(ALL, two), start=0.5)
    seen: list[torch.Tensor] = []
    sample("sd15", chained, prompt("sd15", 1), steps=4, callback=lambda _s, clean, *_: seen.append(clean))
    alone: list[torch.Tensor] = []
    sample("sd15", models["sd15"], one, steps=4, callback=lambda _s, clean, *_: alone.append(clean))
    assert near(seen[0], alone[0]) and not near(seen[-1], alone[-1])


def caches() -> int:
    from blocklora.blocklora_core.host.regions.session import Session

    gc.collect()
    return sum(type(found) is Session for found in gc.get_objects())


@pytest.mark.parametrize("name", ["sd15", "sd3", "flux"])
def test_nothing_outlives_the_sampling(models: dict[str, Any], name: str) -> None:
    model = regional(models[name], *halves(name))
    first = sample(name, model, prompt(name, 1))
    assert caches() == 0
    assert torch.equal(first, sample(name, model, prompt(name, 1))), "queued again, it is the same picture"
    assert list(model.model_options) == ["transformer_options"] and not model.model_options["transformer_options"]
    comfy.model_management.unload_all_models()
    gone = weakref.ref(model)
    del model
    gc.collect()
    assert gone() is None


@pytest.mark.parametrize("name", ["sd15", "sd3", "flux"])
def test_changed_prompts_know_nothing_of_those_before(models: dict[str, Any], name: str) -> None:
    changed = regional(models[name], Region(ALL, prompt(name, 4)))
    fresh = sample(name, changed, prompt(name, 1))
    before = sample(name, regional(models[name], *halves(name)), prompt(name, 1))
    again = sample(name, changed, prompt(name, 1))
    assert torch.equal(again, fresh) and not near(again, before)
    assert torch.equal(sample(name, regional(models[name], Region(ALL, prompt(name, 4))), prompt(name, 1)), fresh)
    assert caches() == 0


@pytest.mark.parametrize("name", ["sd15", "flux"])
def test_cancel_leaves_nothing(models: dict[str, Any], name: str) -> None:
    model = regional(models[name], *halves(name))

    def cancel(*_: Any) -> None:
        assert caches() == 1
        raise comfy.model_management.InterruptProcessingException

    with pytest.raises(comfy.model_management.InterruptProcessingException):
        sample(name, model, prompt(name, 1), callback=cancel)
    assert caches() == 0
    assert torch.equal(
        sample(name, model, prompt(name, 1)), sample(name, regional(models[name], *halves(name)), prompt(name, 1))
    )
    assert len(model.wrappers["outer_sample"][KEY]) == len(model.wrappers["apply_model"][KEY]) == 1


def refused(message: str, call: Callable[[], Any]) -> None:
    with pytest.raises(ValueError, match=message):
        call()


def test_what_does_not_fit_is_refused(models: dict[str, Any]) -> None:
    model, own = models["sd15"], prompt("sd15", 2)
    wide = [[torch.zeros(1, 7, 64), {}]]
    refused("96 numbers wide, as this model reads, got 64", lambda: regional(model, Region(ALL, wide, concept="<a>")))
    refused("expected one positive prompt, got 2", lambda: regional(model, Region(ALL, own + own)))
    masked = prompt("sd15", 2, mask=torch.ones(1))
    refused("text alone, got one with mask", lambda: regional(model, Region(ALL, masked)))
    refused("0 <= start < end <= 1, got 0.5", lambda: regional(model, Region(ALL, own), start=0.5, end=0.5))
    refused("at least one of a weight above 0", lambda: regional(model))
    refused("expected one of mean", lambda: regional(model, Region(ALL, own), rule="sum"))


@pytest.mark.parametrize(("name", "value"), [("axes_dim", [8, 8, 8, 8]), ("txt_ids_dims", [2])])
def test_words_with_places_share_no_pass(
    models: dict[str, Any], monkeypatch: pytest.MonkeyPatch, name: str, value: list[int]
) -> None:
    """As Flux.2 has them: behind others they would be other words."""
    network = models["flux"].model.diffusion_model
    assert takes_longer_prompts(network)
    monkeypatch.setattr(network.params, name, value, raising=False)
    assert not takes_longer_prompts(network)


def test_areas_of_the_sampler_s_prompt_are_refused(models: dict[str, Any]) -> None:
    area = prompt("sd15", 1, area=(4, 4, 0, 0), strength=1.0)
    model = regional(models["sd15"], Region(LEFT, prompt("sd15", 2)))
    refused("Use a region in its place", lambda: sample("sd15", model, [*area, *prompt("sd15", 3)]))


def test_masks_of_the_sampler_s_prompt_are_not(models: dict[str, Any]) -> None:
    masked = prompt("sd15", 1, mask=torch.ones(1, 8, 8), mask_strength=1.0)
    model = regional(models["sd15"], Region(LEFT, prompt("sd15", 2)))
    assert near(sample("sd15", model, masked), sample("sd15", model, prompt("sd15", 1)))


def test_merged_tokens_are_refused(models: dict[str, Any]) -> None:
    model = models["sd15"].clone()
    model.set_model_attn2_patch(lambda n, context, value, _options: (n[:, ::2], context, value))
    patched = regional(model, Region(LEFT, prompt("sd15", 2)))
    refused("switch it off for this model", lambda: sample("sd15", patched, prompt("sd15", 1)))


def test_a_mask_of_attention_is_refused(models: dict[str, Any]) -> None:
    with_mask = dataclasses.replace(halves("flux")[0])
    model = regional(models["flux"], with_mask)
    masked = prompt("flux", 1, attention_mask=torch.zeros(1, 1 + 16, 1 + 16), attention_mask_img_shape=(4, 4))
    refused("expected attention without a mask", lambda: sample("flux", model, masked))


@pytest.mark.skipif(WANTED, reason="who guides has weights of its own first: see with_own_weights")
def test_gradients_flow_through_regions(models: dict[str, Any]) -> None:
    """Guidance differentiates through them."""
    own = prompt("sd15", 2)
    sampling = RegionalSampling((Region(LEFT, own),))
    x = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(0)).requires_grad_(True)
    model = models["sd15"].model

    def plain(x: Any, t: Any, *_: Any, **__: Any) -> Any:
        return model._apply_model(x, t, *_, **__)

    executor = comfy.patcher_extension.WrapperExecutor.new_class_executor(plain, model, [sampling.predict])
    out = executor.execute(x, torch.ones(1), None, prompt("sd15", 1)[0][0], None, {"cond_or_uncond": [0]})
    out.square().sum().backward()
    assert x.grad is not None and bool(x.grad.isfinite().all()) and bool(x.grad.any())
