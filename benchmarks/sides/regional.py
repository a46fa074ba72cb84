"""The ways to sample by regions that benchmarks/regions.py compares: each is a MODEL and what KSampler is given."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from itertools import pairwise, product
from typing import Any

import comfy.hooks
import comfy.sample
import comfy.samplers
import node_helpers
import torch

from blocklora_core.host.composer.composer import apply_composer
from blocklora_core.host.composer.prompt import CONCEPT_AT
from blocklora_core.host.regions.regional import RegionalSampling, apply_regions
from blocklora_core.regions import Box, Region, mask_of
from blocklora_core.regions.composer.options import CODE

TOKENS, SEED, CFG, RANK = 77, 3, 7.5, 8
Prompt = list[list[Any]]


@dataclass(frozen=True)
class Job:
    """What one side samples with."""

    model: Any
    positive: Prompt


class Scene:
    """A model with a prompt for the whole picture, and up to ten regions with a prompt and a LoRA each."""

    def __init__(self, model: Any, width: int, latent: int):
        self.model, self.latent = model, latent
        self.random = torch.Generator().manual_seed(SEED)
        self.prompts = [self._prompt(width) for _ in range(11)]
        self.negative = self._prompt(width)
        self.noise = torch.randn(1, 4, latent, latent, generator=self.random)

    def _prompt(self, width: int) -> Prompt:
        return [[torch.randn(1, TOKENS, width, generator=self.random), {}]]

    def loras(self, count: int) -> list[dict[str, torch.Tensor]]:
        """LoRAs of the cross-attention's Linears, as a concept's file holds them."""
        weights = self.model.model.diffusion_model.state_dict()
        names = [name for name in weights if "attn2.to_" in name and name.endswith(".weight")]
        return [dict(pair for name in names for pair in self._lora(name, weights[name])) for _ in range(count)]

    def _lora(self, name: str, weight: torch.Tensor) -> list[tuple[str, torch.Tensor]]:
        stem = f"diffusion_model.{name.removesuffix('.weight')}"
        up, down = (
            torch.randn(shape, generator=self.random) * 0.01
            for shape in ((weight.shape[0], RANK), (RANK, weight.shape[1]))
        )
        return [(f"{stem}.lora_up.weight", up), (f"{stem}.lora_down.weight", down)]

    def steps(self, job: Job, count: int) -> list[float]:
        """Seconds of each of `count` steps of KSampler; the first has in it what a sampling does once."""
        marks = [time.perf_counter()]
        with torch.inference_mode():
            comfy.sample.sample(
                job.model, self.noise, count, CFG, "euler", "normal", job.positive, self.negative,
                torch.zeros_like(self.noise), callback=lambda *_: marks.append(time.perf_counter()), disable_pbar=True,
                seed=SEED,
            )  # fmt: skip
        return [after - before for before, after in pairwise(marks)]


def boxes(count: int) -> list[Box]:
    """`count` boxes side by side, in two rows from six on, with a margin above and below."""
    rows = 1 if count <= 5 else 2
    columns = count // rows
    return [
        Box(column / columns, 0.1 + 0.8 * row / rows, 1 / columns, 0.8 / rows)
        for row, column in product(range(rows), range(columns))
    ]


def plain(scene: Scene, _count: int) -> Job:
    """One prompt for the whole picture."""
    return Job(scene.model, scene.prompts[0])


def ours(scene: Scene, count: int) -> Job:
    """BlockLoRA Regional Sampling. The concepts' weights are merged beforehand, and a step knows nothing of them."""
    regions = tuple(Region(box, prompt) for box, prompt in zip(boxes(count), scene.prompts[1:], strict=False))
    return Job(apply_regions(scene.model, RegionalSampling(regions)), scene.prompts[0])


def composer(scene: Scene, count: int) -> Job:
    """BlockLoRA Composer with all of its parts, guided in every step, as its first steps are."""
    regions = tuple(
        Region(box, [[prompt[0][0], {CONCEPT_AT: (4, 5)}]], concept=f"<{number}>")
        for number, (box, prompt) in enumerate(zip(boxes(count), scene.prompts[1:], strict=False))
    )
    always = replace(CODE, last_step=10_000, patience=10_000)
    return Job(apply_composer(scene.model, regions, always).model, scene.prompts[0])


def stock_masks(scene: Scene, count: int) -> Job:
    """Conditioning (Set Mask) for each region, combined with the whole picture's: no LoRA of their own."""
    return Job(scene.model, [*scene.prompts[0], *(own for prompt in _masked(scene, count) for own in prompt)])


def stock_areas(scene: Scene, count: int) -> Job:
    """Conditioning (Set Area with Percentage), combined in the same way."""
    areas = [
        node_helpers.conditioning_set_values(
            prompt, {"area": ("percentage", box.height, box.width, box.y, box.x), "strength": 1.0}
        )
        for box, prompt in zip(boxes(count), scene.prompts[1:], strict=False)
    ]
    return Job(scene.model, [*scene.prompts[0], *(own for prompt in areas for own in prompt)])


def stock_hooks(scene: Scene, count: int) -> Job:
    """Set Mask with a Create Hook LoRA for each region: each has its own weights, as with merged concepts."""
    hooked = [
        comfy.hooks.set_hooks_for_conditioning(prompt, comfy.hooks.create_hook_lora(lora, 1.0, 0.0))
        for prompt, lora in zip(_masked(scene, count), scene.loras(count), strict=True)
    ]
    return Job(scene.model, [*scene.prompts[0], *(own for prompt in hooked for own in prompt)])


def per_region(scene: Scene, count: int) -> Job:
    """The straightforward way: a whole prediction with each region's prompt, mixed by the regions' masks."""
    masks = [mask_of(Region(box), (scene.latent, scene.latent)) for box in boxes(count)]
    model = scene.model.clone()
    model.set_model_sampler_calc_cond_batch_function(lambda args: _predict_each(args, masks))
    return Job(model, [*scene.prompts[0], *(own for prompt in scene.prompts[1 : count + 1] for own in prompt)])


def _masked(scene: Scene, count: int) -> list[Prompt]:
    masks = [mask_of(Region(box), (scene.latent, scene.latent))[None] for box in boxes(count)]
    values = [{"mask": mask, "set_area_to_bounds": False, "mask_strength": 1.0} for mask in masks]
    return [
        node_helpers.conditioning_set_values(prompt, value)
        for prompt, value in zip(scene.prompts[1:], values, strict=False)
    ]


def _predict_each(args: Mapping[str, Any], masks: list[torch.Tensor]) -> list[torch.Tensor]:
    positive, negative = args["conds"]
    given = (args["input"], args["sigma"], args["model_options"])
    whole, without = comfy.samplers.calc_cond_batch(args["model"], [positive[:1], negative], *given)
    for prompt, mask in zip(positive[1:], masks, strict=True):
        (own,) = comfy.samplers.calc_cond_batch(args["model"], [[prompt]], *given)
        whole = torch.where(mask.bool().to(whole.device), own, whole)
    return [whole, without]


WAYS: Mapping[str, Callable[[Scene, int], Job]] = {
    "ours": ours,
    "composer": composer,
    "stock_masks": stock_masks,
    "stock_areas": stock_areas,
    "stock_hooks": stock_hooks,
    "per_region": per_region,
}
"""Name -> scene, number of regions -> job. The first keys of the JSON start with these names."""
