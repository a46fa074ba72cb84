"""LoRA-Composer through the stock sampler, on tiny UNets."""

from __future__ import annotations

import contextlib
import gc
import weakref
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import comfy.model_management
import comfy.sample
import pytest
import torch
from blocklora.blocklora_core.concept.concept import BlockLoRA, Concept
from blocklora.blocklora_core.concept.layer import Layer
from blocklora.blocklora_core.concept.rows import all_rows
from blocklora.blocklora_core.host.composer.attention import AttentionPatches, Boxes, _SelfAttention
from blocklora.blocklora_core.host.composer.blocks import downscaling, watched_blocks
from blocklora.blocklora_core.host.composer.composer import apply_composer
from blocklora.blocklora_core.host.composer.context import KEY, Context
from blocklora.blocklora_core.host.composer.guidance import LatentGradient, forward, latent_gradient
from blocklora.blocklora_core.host.composer.maps import Recorder
from blocklora.blocklora_core.host.composer.prompt import CONCEPT_AT
from blocklora.blocklora_core.host.composer.run import Run
from blocklora.blocklora_core.host.regions.regional import RegionalSampling, apply_regions
from blocklora.blocklora_core.host.text.layerwise import cross_attention_blocks
from blocklora.blocklora_core.host.weights.autograd import leave_inference_mode
from blocklora.blocklora_core.host.weights.names import model_stems, preferred_stems
from blocklora.blocklora_core.host.weights.patching import apply_merge
from blocklora.blocklora_core.regions import Box, Region
from blocklora.blocklora_core.regions.composer.options import CODE, PAPER, ComposerOptions
from blocklora.blocklora_core.regions.composer.reinit import reinitialised
from blocklora.blocklora_core.regions.composer.schedule import step_sizes
from comfy.controlnet import ControlBase
from comfy.ldm.modules.diffusionmodules.openaimodel import UNetModel
from comfy.patcher_extension import WrappersMP

from tests.host.any_model import MODELS, build

UNETS = ("sd15", "sd20-v", "sdxl")
LEFT, RIGHT, ALL = Box(0, 0, 0.5, 1), Box(0.5, 0.25, 0.5, 0.75), Box(0, 0, 1, 1)
OFF = ComposerOptions(0, 0, 0, injection=False, isolation=False, reinitialise=False)
Prompt = list[list[Any]]


@pytest.fixture(scope="module")
def models() -> dict[str, Any]:
    with torch.inference_mode():  # As the executor runs loaders.
        return {name: lively(build(name)) for name in UNETS}


def lively(model: Any) -> Any:
    """`model` with attention that minds what the picture is, so that gradients are more than rounding errors."""
    for name, weight in model.model.named_parameters():
        if name.endswith((".to_q.weight", ".to_k.weight")):
            weight.mul_(12)
    return model


def state(model: Any) -> tuple[Any, ...]:
    """All that a sampling may have left behind: hooks, patched forwards, gradients, flags, wrappers, options."""
    parts = list(model.model.modules())
    return (
        sum(len(part._forward_hooks) + len(part._forward_pre_hooks) + len(part._backward_hooks) for part in parts),
        sum("forward" in vars(part) for part in parts),
        [weight.requires_grad for weight in model.model.parameters()],
        [weight.grad is None for weight in model.model.parameters()],
        {kind: {key: len(found) for key, found in keyed.items()} for kind, keyed in model.wrappers.items()},
        str(model.model_options),
        torch.is_grad_enabled(),
        torch.is_inference_mode_enabled(),
        getattr(comfy.model_management, "in_training", False),
    )


@pytest.fixture(autouse=True)
def _nothing_is_left(models: dict[str, Any]) -> Iterator[None]:
    before = {name: state(model) for name, model in models.items()}
    weights = {name: [weight.clone() for weight in model.model.parameters()] for name, model in models.items()}
    yield
    comfy.model_management.unload_all_models()
    assert {name: state(model) for name, model in models.items()} == before
    for name, model in models.items():
        assert all(map(torch.equal, model.model.parameters(), weights[name]))


def prompt(name: str, seed: int, tokens: int = 7, at: tuple[int, ...] = (2, 3)) -> Prompt:
    random = torch.Generator().manual_seed(seed)
    pooled = torch.randn(1, MODELS[name][2], generator=torch.Generator().manual_seed(1))
    return [[torch.randn(1, tokens, 96, generator=random) * 3, {"pooled_output": pooled, CONCEPT_AT: at}]]


def halves(name: str, **fields: Any) -> tuple[Region, Region]:
    return (
        Region(LEFT, prompt(name, 2), concept="<a>", **fields),
        Region(RIGHT, prompt(name, 3, 11, (4,)), concept="<b>", **fields),
    )


@torch.inference_mode()
def sample(
    name: str, model: Any, *, size: tuple[int, int] = (8, 8), batch: int = 1, cfg: float = 3.0, steps: int = 3,
    sampler: str = "euler", callback: Any = None, noise: torch.Tensor | None = None, **settings: Any,
) -> torch.Tensor:  # fmt: skip
    drawn = torch.randn(batch, 4, *size, generator=torch.Generator().manual_seed(5))
    noise = drawn if noise is None else noise
    return comfy.sample.sample(
        model, noise, steps, cfg, sampler, "normal", prompt(name, 1), prompt(name, 99),
        settings.pop("latents", torch.zeros_like(noise)), seed=5, callback=callback, disable_pbar=True, **settings,
    )  # fmt: skip


def composed(models: dict[str, Any], name: str, options: ComposerOptions, **settings: Any) -> Any:
    regions = settings.pop("regions", halves(name))
    return apply_composer(models[name], regions, options, **settings).model


def near(a: torch.Tensor, b: torch.Tensor, tolerance: float = 1e-4) -> bool:
    return torch.allclose(a, b, rtol=tolerance, atol=tolerance * float(b.abs().max()))


# Where maps are read


@pytest.mark.parametrize("name", UNETS)
def test_the_only_level_is_watched_where_there_is_one(models: dict[str, Any], name: str) -> None:
    network = models[name].model.diffusion_model
    assert set(downscaling(network).values()) == {2}
    assert watched_blocks(network) == frozenset(cross_attention_blocks(network))


def test_sd15_s_layout_watches_layers_4_5_7_8_9() -> None:
    with torch.device("meta"):
        network = UNetModel(
            image_size=32, in_channels=4, out_channels=4, model_channels=32, num_res_blocks=[2, 2, 2, 2],
            channel_mult=(1, 2, 4, 4), transformer_depth=[1, 1, 1, 1, 1, 1, 0, 0], transformer_depth_middle=1,
            transformer_depth_output=[1] * 9 + [0] * 3, context_dim=32, num_heads=8, use_spatial_transformer=True,
        )  # fmt: skip
    numbers = {place: number for number, place in enumerate(cross_attention_blocks(network))}
    assert len(numbers) == 16
    assert sorted(numbers[place] for place in watched_blocks(network)) == [4, 5, 7, 8, 9]


# Parts switched off


@pytest.mark.parametrize("name", UNETS)
def test_with_all_parts_off_it_is_regional_sampling_bit_for_bit(models: dict[str, Any], name: str) -> None:
    plain = apply_regions(models[name], RegionalSampling(halves(name)))
    assert torch.equal(sample(name, composed(models, name, OFF)), sample(name, plain))


PARTS = {
    "enhancement": {"enhancement": 1.0},
    "fill": {"fill": 1.0},
    "region": {"region": 1.0},
    "isolation": {"isolation": True},
    "reinitialise": {"reinitialise": True},
}


@pytest.mark.parametrize("part", PARTS)
@pytest.mark.parametrize("name", UNETS)
def test_each_part_does_something_by_itself(models: dict[str, Any], name: str, part: str) -> None:
    alone = sample(name, composed(models, name, replace(OFF, **PARTS[part])))
    assert bool(alone.isfinite().all())
    assert not near(alone, sample(name, composed(models, name, OFF)), 1e-6)


@pytest.mark.parametrize("options", [PAPER, CODE], ids=["paper", "code"])
@pytest.mark.parametrize("name", UNETS)
def test_the_same_seed_is_the_same_picture(models: dict[str, Any], name: str, options: ComposerOptions) -> None:
    model = composed(models, name, options)
    first = sample(name, model)
    assert torch.equal(first, sample(name, model)) and bool(first.isfinite().all())
    assert not near(first, sample(name, composed(models, name, OFF)), 1e-6)


def test_each_picture_of_a_batch_is_as_alone(models: dict[str, Any]) -> None:
    noise = torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(8))
    model = composed(models, "sd15", CODE)
    both = sample("sd15", model, noise=noise)
    for number in range(2):
        assert near(both[number : number + 1], sample("sd15", model, noise=noise[number : number + 1]), 1e-3)


@pytest.mark.parametrize("size", [(9, 13), (6, 20)])
def test_any_size(models: dict[str, Any], size: tuple[int, int]) -> None:
    found = sample("sd15", composed(models, "sd15", PAPER), size=size)
    assert found.shape[-2:] == size and bool(found.isfinite().all())


@pytest.mark.parametrize(
    "sampler", ["euler_ancestral", "heun", "dpm_2", "dpmpp_2m", "dpmpp_2s_ancestral", "ddim", "uni_pc", "lms"]
)
def test_any_sampler(models: dict[str, Any], sampler: str) -> None:
    found = sample("sd15", composed(models, "sd15", CODE), sampler=sampler)
    assert bool(found.isfinite().all())
    assert not near(found, sample("sd15", composed(models, "sd15", OFF), sampler=sampler), 1e-6)


# Guidance


class Probe:
    """Called in place of the sampler's first prediction, with the guider and the options it has there."""

    def __init__(self, model: Any, ask: Any):
        self.model, self.ask, self.answer = model.clone(), ask, None
        self.model.add_wrapper_with_key(WrappersMP.PREDICT_NOISE, "probe", self)

    def __call__(self, executor: Any, x: Any, sigma: Any, model_options: Any, *args: Any) -> Any:
        if self.answer is None:
            self.answer = self.ask(executor.class_obj, x, sigma, model_options)
        return executor(x, sigma, model_options, *args)


def recorder(model: Any, options: ComposerOptions) -> Recorder:
    places = watched_blocks(model.model.diffusion_model)
    return Recorder(places, [(2, 3), (4,)], options.reads_tokens, options.region > 0)


@pytest.mark.parametrize("options", [PAPER, CODE, replace(CODE, isolation=False), replace(OFF, region=1.0)])
@pytest.mark.parametrize("name", UNETS)
def test_the_gradient_is_the_loss_s_slope(models: dict[str, Any], name: str, options: ComposerOptions) -> None:
    """Along random directions, by finite differences: checkpointing, the early end and all."""
    boxes = Boxes(halves(name), "mean")
    base = models[name]

    def ask(guider: Any, x: Any, sigma: Any, model_options: Any) -> Any:
        def at(latents: torch.Tensor) -> Any:
            found = latent_gradient(
                guider, latents, sigma, model_options, recorder(base, options),
                lambda size: boxes.masks(size, x.device), options,
            )  # fmt: skip
            assert found is not None
            return found

        here, slopes = at(x), []
        for seed in range(3):
            way = torch.randn(x.shape, generator=torch.Generator().manual_seed(seed))
            # Far enough for float32, near enough for the curve.
            far = 0.004
            after, before = (at(x + sign * far * way * here.scale).loss for sign in (1, -1))
            slope, expected = float(after - before) / (2 * far), float((here.gradient * way).sum())
            slopes.append((slope, expected))
        return slopes

    probe = Probe(composed(models, name, replace(options, reinitialise=False)), ask)
    sample(name, probe.model, steps=1)
    for slope, expected in probe.answer:
        assert slope == pytest.approx(expected, rel=0.03, abs=0.03 * max(abs(found) for _, found in probe.answer))


def test_the_step_is_the_equation_s(models: dict[str, Any]) -> None:
    """z <- z - 20 sqrt(s) grad, with z the latents as the network takes them in."""
    options = replace(OFF, enhancement=1.0, fill=0.5)
    seen: list[Any] = []

    def ask(guider: Any, x: Any, sigma: Any, model_options: Any) -> Any:
        run: Run = model_options["transformer_options"][KEY].run
        found = latent_gradient(
            guider, x, sigma, model_options, recorder(models["sd15"], options), run.masks_at, options
        )
        assert found is not None
        z = x / found.scale
        moved = x.clone()
        run.guide(guider, moved, sigma, model_options)
        seen.append((z, moved / found.scale, z - step_sizes(3, options)[0] * found.gradient))
        return True

    # The probe's wrapper comes first, as the composer's own is added after it.
    probed = models["sd15"].clone()
    probe = Probe(probed, ask)
    sample("sd15", apply_composer(probe.model, halves("sd15"), options).model)
    ((before, moved, expected),) = seen
    assert near(moved, expected, 1e-6) and not near(moved, before, 1e-5)


def test_the_loss_falls_by_a_small_step(models: dict[str, Any]) -> None:
    losses: list[float] = []

    def ask(guider: Any, x: Any, sigma: Any, model_options: Any) -> Any:
        run: Run = model_options["transformer_options"][KEY].run
        for _ in range(3):
            run.guide(guider, x, sigma, model_options)
            losses.append(float(run.losses[0]))
        return True

    options = replace(OFF, enhancement=1.0, step_size=1.0)
    sample("sd15", apply_composer(Probe(models["sd15"], ask).model, halves("sd15"), options).model, steps=1)
    assert losses[2] < losses[1] < losses[0]


def runs(monkeypatch: pytest.MonkeyPatch) -> list[Run]:
    made: list[Run] = []
    original = Run.__init__

    def keep(self: Run, *args: Any, **named: Any) -> None:
        original(self, *args, **named)
        made.append(self)

    monkeypatch.setattr(Run, "__init__", keep)
    return made


def test_guidance_ends_where_the_rule_says_and_then_costs_nothing(
    models: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    made, calls = runs(monkeypatch), []
    options = replace(OFF, fill=1.0, last_step=2)
    model = composed(models, "sd15", options)

    def count(executor: Any, *args: Any, **named: Any) -> Any:
        calls.append(1)
        return executor(*args, **named)

    model.add_wrapper_with_key(WrappersMP.APPLY_MODEL, "count", count)
    sample("sd15", model, steps=6)
    assert made[0].guided == 3 and sorted(made[0].losses) == [0, 1, 2]
    # Six predictions, and a forward for each guided step.
    assert len(calls) == 6 + 3


def test_a_stopped_picture_is_moved_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    run = Run(
        replace(OFF, fill=1.0, patience=1), Boxes(halves("sd15"), "mean"), frozenset(), [], torch.arange(5.0).flip(0)
    )
    told = iter([[5.0, 1.0], [6.0, 0.9], [1.0, 0.8], [1.0, 2.0]])
    monkeypatch.setattr(
        "blocklora.blocklora_core.host.composer.run.latent_gradient",
        lambda _guider, x, *_, **_named: LatentGradient(torch.tensor(next(told)), torch.ones_like(x), torch.ones(1)),
    )
    x, sizes = torch.zeros(2, 1), step_sizes(4, PAPER)
    for step, level in enumerate((4.0, 3.0, 2.0, 1.0)):
        run.guide(None, x, torch.full((2,), level), {})
        run.counting(None)(step, x, x, 4)
    assert x.flatten().tolist() == pytest.approx([-sum(sizes[:2]), -sum(sizes)])
    assert run.guided == 4
    run.guide(None, x, torch.ones(2), {})
    assert run.guided == 4


def test_a_gradient_that_overflows_leaves_its_picture(monkeypatch: pytest.MonkeyPatch) -> None:
    run = Run(replace(OFF, fill=1.0), Boxes(halves("sd15"), "mean"), frozenset(), [], torch.tensor([2.0, 1.0, 0.0]))
    gradient = torch.tensor([[1.0], [torch.nan]])
    monkeypatch.setattr(
        "blocklora.blocklora_core.host.composer.run.latent_gradient",
        lambda *_, **_named: LatentGradient(torch.tensor([1.0, torch.nan]), gradient, torch.ones(1)),
    )
    x = torch.zeros(2, 1)
    run.guide(None, x, torch.full((2,), 2.0), {})
    assert x.flatten().tolist() == [-20.0, 0.0]


@pytest.mark.parametrize(
    ("sampler", "guided"),
    [("euler", 4), ("euler_ancestral", 4), ("dpm_2", 4), ("dpmpp_2m", 4), ("ddim", 4), ("uni_pc", 4), ("heun", 7)],
)
def test_every_step_is_guided(
    models: dict[str, Any], monkeypatch: pytest.MonkeyPatch, sampler: str, guided: int
) -> None:
    """Once. Heun's looks ahead to the next step's level are guided as well."""
    made = runs(monkeypatch)
    sample("sd15", composed(models, "sd15", replace(OFF, fill=1.0)), sampler=sampler, steps=4)
    assert made[0].guided == guided and sorted(made[0].losses) == [0, 1, 2, 3]


def test_gradients_reach_the_latents_and_nothing_else(models: dict[str, Any]) -> None:
    model = models["sd15"]

    def ask(guider: Any, x: Any, sigma: Any, model_options: Any) -> Any:
        run: Run = model_options["transformer_options"][KEY].run
        found = latent_gradient(guider, x, sigma, model_options, recorder(model, CODE), run.masks_at, CODE)
        assert found is not None and bool((found.gradient != 0).all())
        assert not any(tensor.requires_grad for tensor in (x, *found))
        return True

    sample("sd15", apply_composer(Probe(model, ask).model, halves("sd15"), CODE).model, steps=1)
    assert all(weight.grad is None for weight in model.model.parameters())


def test_checkpointing_bounds_memory_and_changes_no_gradient(
    models: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Maps leave the blocks that are computed again by the side, through the recorder."""
    kept: list[int] = []

    def ask(guider: Any, x: Any, sigma: Any, model_options: Any) -> Any:
        run: Run = model_options["transformer_options"][KEY].run

        def gradient() -> Any:
            kept.append(0)
            with torch.autograd.graph.saved_tensors_hooks(count, lambda tensor: tensor):
                return latent_gradient(
                    guider, x, sigma, model_options, recorder(models["sd15"], CODE), run.masks_at, CODE
                )

        with_it = gradient()
        monkeypatch.setattr(
            "blocklora.blocklora_core.host.composer.guidance.checkpointed",
            lambda _blocks: contextlib.nullcontext(),
        )
        return with_it, gradient()

    def count(tensor: torch.Tensor) -> torch.Tensor:
        kept[-1] += tensor.nbytes
        return tensor

    probe = Probe(models["sd15"], ask)
    sample("sd15", apply_composer(probe.model, halves("sd15"), CODE).model, steps=1)
    checkpointed, plain = probe.answer
    assert near(checkpointed.gradient, plain.gradient, 1e-5) and near(checkpointed.loss, plain.loss, 1e-6)
    assert 0 < kept[0] < kept[1] / 2


class Hints(ControlBase):
    """A ControlNet whose hint depends on the latents and on a weight of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.weight, self.asked = torch.full((1,), 0.5), 0

    def get_control(self, x: torch.Tensor, *_: Any) -> Any:
        self.asked += 1
        assert not x.requires_grad and not torch.is_grad_enabled()
        hint = self.weight * torch.ones(x.shape[0], 128, x.shape[2] // 2, x.shape[3] // 2) * x.mean()
        return {"input": [], "middle": [hint], "output": []}


def test_a_controlnet_is_heard_in_guidance_without_a_gradient(models: dict[str, Any]) -> None:
    with torch.inference_mode():
        hints = Hints()
    options = replace(OFF, fill=1.0)

    def controlled(model: Any, control: Any) -> torch.Tensor:
        positive = prompt("sd15", 1)
        positive[0][1]["control"] = control
        noise = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(5))
        with torch.inference_mode():
            return comfy.sample.sample(
                model, noise, 2, 3.0, "euler", "normal", positive, prompt("sd15", 99), torch.zeros_like(noise),
                seed=5, disable_pbar=True,
            )  # fmt: skip

    model = composed(models, "sd15", options)
    found = controlled(model, hints)
    # Two steps, and two forwards of guidance.
    assert hints.asked == 4 and bool(found.isfinite().all())
    assert not near(found, controlled(composed(models, "sd15", OFF), Hints()), 1e-6)


def test_weights_that_ask_for_gradients_do_so_again(models: dict[str, Any]) -> None:
    sample("sd15", composed(models, "sd15", CODE), steps=1)
    weight = next(weight for weight in models["sd15"].model.parameters() if not weight.is_inference())
    weight.requires_grad_(True)
    try:
        sample("sd15", composed(models, "sd15", CODE), steps=1)
        assert weight.requires_grad and weight.grad is None
    finally:
        weight.requires_grad_(False)


def test_weights_on_another_device_stay_as_they_are() -> None:
    """The host copies those to where it computes at each use: as ordinary tensors."""
    with torch.inference_mode():
        module = torch.nn.Linear(2, 2)
    leave_inference_mode(module, torch.device("cuda"))
    assert module.weight.is_inference()
    leave_inference_mode(module, torch.device("cpu"))
    assert not module.weight.is_inference() and not module.weight.requires_grad


def test_inpainting_is_guided_through_the_prediction(models: dict[str, Any]) -> None:
    mask = torch.zeros(1, 1, 8, 8)
    mask[..., :4] = 1
    settings: dict[str, Any] = {"latents": torch.ones(1, 4, 8, 8), "noise_mask": mask}
    options = replace(CODE, reinitialise=False)
    found = sample("sd15", composed(models, "sd15", options), **settings)
    plain = sample("sd15", composed(models, "sd15", OFF), **settings)
    assert torch.equal(found[..., 4:], plain[..., 4:]) and not near(found[..., :4], plain[..., :4], 1e-6)


def test_boxes_follow_the_overlap_rule() -> None:
    """Each pixel of a box in front is that box's alone; by the mean it is both's."""
    regions = (Region(ALL, None, priority=0), Region(LEFT, None, priority=1))
    both = Boxes(regions, "mean").masks((4, 4), torch.device("cpu"))
    front = Boxes(regions, "priority").masks((4, 4), torch.device("cpu"))
    assert both.sum((1, 2)).tolist() == [16, 8] and front.sum((1, 2)).tolist() == [8, 8]
    assert not (front[0] & front[1]).any()


# Re-initialisation


def test_reinitialisation_exchanges_the_noise_by_the_concepts_maps(models: dict[str, Any]) -> None:
    noise = torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(5))
    model, starts = models["sd15"], []
    regions = halves("sd15")

    def keep(executor: Any, guider: Any, sigmas: Any, extra: Any, callback: Any, given: Any, *args: Any) -> Any:
        starts.append(given.clone())
        return executor(guider, sigmas, extra, callback, given, *args)

    def ask(guider: Any, x: Any, sigma: Any, model_options: Any) -> Any:
        maps = recorder(model, PAPER)
        with torch.no_grad():
            forward(guider, x, sigma, model_options, maps)
        return {region: found.sum(1).clone() for region, found in maps.tokens().items()}

    # Without re-initialisation the first prediction sees the noise as it was.
    probe = Probe(composed(models, "sd15", replace(OFF, isolation=True, enhancement=1e-9, step_size=1e-9)), ask)
    sample("sd15", probe.model, steps=1, noise=noise)
    exchanged = composed(models, "sd15", replace(OFF, isolation=True, reinitialise=True))
    exchanged.add_wrapper_with_key(WrappersMP.SAMPLER_SAMPLE, "keep", keep)
    sample("sd15", exchanged, steps=1, noise=noise)
    masks = Boxes(regions, "mean").masks((4, 4), torch.device("cpu"))
    for number in range(2):
        expected = reinitialised(noise[number], [probe.answer[region][number] for region in (0, 1)], masks)
        assert near(starts[0][number], expected, 1e-5) and not torch.equal(expected, noise[number])


def test_a_stage_without_noise_is_not_reinitialised(models: dict[str, Any]) -> None:
    options = replace(OFF, reinitialise=True)
    settings: dict[str, Any] = {"noise": torch.zeros(1, 4, 8, 8), "latents": torch.ones(1, 4, 8, 8)}
    found = sample("sd15", composed(models, "sd15", options), start_step=1, disable_noise=True, **settings)
    plain = sample("sd15", composed(models, "sd15", OFF), start_step=1, disable_noise=True, **settings)
    assert torch.equal(found, plain)


# Isolation


def test_boxes_do_not_see_each_other() -> None:
    """What lies in one box changes nothing of the other's self-attention, and of the background's something."""
    regions = (Region(Box(0, 0, 0.5, 0.5), prompt("sd15", 2)), Region(Box(0.5, 0.5, 0.5, 0.5), prompt("sd15", 3)))
    patches = AttentionPatches(Boxes(regions, "mean"), isolation=True, context=Context())
    attention = _SelfAttention(patches, ("input", 4, 0), None)
    options = {"n_heads": 2, "attn_precision": None, "activations_shape": [1, 4, 4, 4]}
    draw = torch.Generator().manual_seed(0)
    q, k, v = (torch.randn(1, 16, 8, generator=draw) for _ in range(3))
    first, second = patches.boxes.masks((4, 4), torch.device("cpu")).flatten(1)
    changed = v.clone()
    changed[:, first] += 1
    before, after = attention(q, k, v, options), attention(q, k, changed, options)
    assert torch.equal(before[:, second], after[:, second])
    background = ~(first | second)
    assert not torch.isclose(before[:, background], after[:, background]).all(-1).any()
    assert not torch.isclose(before[:, first], after[:, first]).all(-1).any()


def test_another_packs_self_attention_stays_in_effect(models: dict[str, Any]) -> None:
    other = models["sd15"].clone()
    other.set_model_attn1_replace(lambda q, _k, _v, _options: q * 0.5, "middle", 0)
    options = replace(OFF, isolation=True)
    both = sample("sd15", apply_composer(other, halves("sd15"), options).model)
    assert not near(both, sample("sd15", composed(models, "sd15", options)), 1e-6)
    assert not near(both, sample("sd15", apply_composer(other, halves("sd15"), OFF).model), 1e-6)


# Injection


def concept(model: Any, name: str, seed: int, parts: tuple[str, ...] = ("to_k", "to_v", "to_out.0")) -> BlockLoRA:
    """A plain LoRA of the cross-attentions' `parts`, and of one layer that is not of them."""
    random = torch.Generator().manual_seed(seed)
    weights = model.model.state_dict()
    layers = {}
    for weight, stem in preferred_stems(model_stems(model)).items():
        if any(weight.endswith(f"attn2.{part}.weight") for part in parts):
            m, n = weights[weight].shape
            up, down = torch.randn(m, 3, generator=random) * 0.3, torch.randn(3, n, generator=random) * 0.3
            layers[stem] = Layer(up, down, all_rows(m), m)
    return BlockLoRA(Concept(name), layers)


@pytest.mark.parametrize("strength", [1.0, 0.5])
@pytest.mark.parametrize("name", UNETS)
def test_injection_over_the_whole_picture_is_the_merge(models: dict[str, Any], name: str, strength: float) -> None:
    """Merged weights act on both prompts: here the region has both, too."""
    model = models[name]
    lora = concept(model, "<a>", 1).with_strength(strength)
    regions = (Region(ALL, prompt(name, 2), prompt(name, 99), concept="<a>"),)
    result = apply_composer(model, regions, replace(OFF, injection=True), stack=(lora,))
    assert result.layers == len(lora.layers) and not result.left_out
    injected = sample(name, result.model)
    merged = apply_merge((lora,), model, None, "per_row").model
    expected = sample(name, apply_regions(merged, RegionalSampling(regions)))
    assert near(injected, expected, 1e-3)
    assert not near(injected, sample(name, apply_regions(model, RegionalSampling(regions))), 1e-3)
    assert not model.patches


@pytest.mark.parametrize("part", ["to_k", "to_v", "to_out.0"])
def test_each_injected_part_is_the_merge_s(models: dict[str, Any], part: str) -> None:
    model = models["sd15"]
    lora = concept(model, "<a>", 1, (part,))
    regions = (Region(ALL, prompt("sd15", 2), prompt("sd15", 99), concept="<a>"),)
    injected = sample("sd15", apply_composer(model, regions, replace(OFF, injection=True), stack=(lora,)).model)
    merged = apply_merge((lora,), model, None, "per_row").model
    assert near(injected, sample("sd15", apply_regions(merged, RegionalSampling(regions))), 1e-3)


def test_a_concept_acts_in_its_own_region_alone(models: dict[str, Any]) -> None:
    """In the first layer, whose input is the same."""
    model, outs = models["sd15"], []
    first = next(iter(cross_attention_blocks(model.model.diffusion_model).values()))
    block = next(part for part in model.model.modules() if getattr(part, "attn2", None) is first)
    for stack in ((), (concept(model, "<a>", 1),)):
        seen: list[torch.Tensor] = []
        ready = apply_composer(model, halves("sd15"), replace(OFF, injection=True), stack=stack).model
        handle = block.norm3.register_forward_pre_hook(lambda _m, args, kept=seen: kept.append(args[0].clone()))
        try:
            sample("sd15", ready, steps=1, cfg=1.0)
        finally:
            handle.remove()
        outs.append(seen[0].unflatten(1, (4, 4)))
    changed = ~torch.isclose(outs[0], outs[1], rtol=1e-6, atol=1e-6).all(-1)[0]
    assert changed[:, :2].all() and torch.equal(outs[0][0][:, 2:], outs[1][0][:, 2:])


def test_injection_works_with_guidance(models: dict[str, Any]) -> None:
    stack = (concept(models["sd15"], "<a>", 1), concept(models["sd15"], "<b>", 2))
    for options in (PAPER, CODE):
        found = sample("sd15", composed(models, "sd15", options, stack=stack))
        assert bool(found.isfinite().all())
        assert not near(found, sample("sd15", composed(models, "sd15", options)), 1e-4)
        assert torch.equal(
            sample("sd15", composed(models, "sd15", replace(options, injection=False), stack=stack)),
            sample("sd15", composed(models, "sd15", options)),
        )


def test_layers_elsewhere_are_counted_as_left_out(models: dict[str, Any]) -> None:
    model = models["sd15"]
    lora = concept(model, "<a>", 1)
    stems = preferred_stems(model_stems(model))
    name = next(weight for weight in stems if weight.endswith("attn2.to_q.weight"))
    m, n = model.model.state_dict()[name].shape
    extra = Layer(torch.ones(m, 1), torch.ones(1, n), all_rows(m), m)
    result = apply_composer(
        model, halves("sd15"), PAPER, stack=(lora.with_layers({**lora.layers, stems[name]: extra}),)
    )
    assert result.left_out == {"<a>": 1} and result.layers == len(lora.layers)


# Errors, cancel


class BoomError(Exception):
    pass


@pytest.mark.parametrize("error", [BoomError, comfy.model_management.InterruptProcessingException])
@pytest.mark.parametrize("when", ["forward", "backward", "callback"])
def test_nothing_is_left_after_an_error_or_a_cancel(
    models: dict[str, Any], monkeypatch: pytest.MonkeyPatch, error: type[Exception], when: str
) -> None:
    """The autouse fixture counts."""
    made = runs(monkeypatch)

    def fail(*_: Any, **__: Any) -> Any:
        raise error

    model, network = composed(models, "sd15", CODE), models["sd15"].model.diffusion_model
    middle = network.middle_block[1].transformer_blocks[0].attn2.to_k
    if when == "backward":
        monkeypatch.setattr(torch.autograd, "grad", fail)
    handle = middle.register_forward_pre_hook(fail) if when == "forward" else None
    try:
        with pytest.raises(error):
            sample("sd15", model, callback=fail if when == "callback" else None)
    finally:
        if handle:
            handle.remove()
    monkeypatch.undo()
    kept = weakref.ref(made.pop())
    gc.collect()
    assert kept() is None
    assert torch.equal(sample("sd15", model), sample("sd15", model))


def test_changed_prompts_know_nothing_of_those_before(models: dict[str, Any]) -> None:
    left, right = halves("sd15")
    changed = (replace(left, positive=prompt("sd15", 4)), right)
    fresh = sample("sd15", composed(models, "sd15", CODE, regions=changed))
    before = sample("sd15", composed(models, "sd15", CODE))
    again = sample("sd15", composed(models, "sd15", CODE, regions=changed))
    assert torch.equal(again, fresh) and not near(again, before)


def test_a_run_does_not_outlive_its_sampling(models: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    made = runs(monkeypatch)
    sample("sd15", composed(models, "sd15", CODE))
    kept = weakref.ref(made.pop())
    gc.collect()
    assert kept() is None


def test_what_cannot_be_composed_is_refused(models: dict[str, Any]) -> None:
    model, regions = models["sd15"], halves("sd15")
    bare = Region(LEFT, [[prompt("sd15", 2)[0][0], {}]], concept="<a>")
    for wrong, settings, message in (
        ((model, (bare,), PAPER), {}, "BlockLoRA Concept Prompt"),
        ((model, (Region(LEFT, None, concept="<a>"),), PAPER), {}, "got none"),
        ((composed(models, "sd15", PAPER), regions, PAPER), {}, "no Composer has changed"),
        ((model, regions, PAPER), {"stack": (concept(model, "<c>", 1),)}, "got none for <c>"),
        ((model, regions, PAPER), {"stack": (concept(model, "<a>", 1, ("to_q",)),)}, "to_k, to_v or to_out"),
        ((build("sd3"), regions, PAPER), {}, "UNet with cross-attention"),
    ):
        with pytest.raises(ValueError, match=message):
            apply_composer(*wrong, **settings)
    # The region loss, the mask and plain regions need no place of a token.
    apply_composer(model, (bare,), replace(PAPER, enhancement=0, fill=0, reinitialise=False))
