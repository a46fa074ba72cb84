"""LoRA-Composer (Yang et al., arXiv 2403.11627) on a stock sampler: wrappers on a clone of MODEL, nothing on the model.

Regional sampling is the ground it stands on (host/regional.py). Around the sampler, one wrapper may exchange the noise
(latent re-initialisation); around each prediction, one moves the latents first (the losses' guidance); around each
call of the model, one changes its self-attention (the concept region mask) and adds the concepts' changes of to_out
(injection). The values are in composer/options.py.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from comfy.ldm.modules.diffusionmodules.openaimodel import UNetModel
from comfy.patcher_extension import WrappersMP
from torch import Tensor

from ...concept.concept import Stack
from ...regions import OverlapRule, Regions, check_regions
from ...regions.composer.options import DEFAULTS, ComposerOptions
from ..base import base_name
from ..comfy import ComfyModel
from ..regions.cross import project
from ..regions.regional import RegionalSampling, apply_regions
from ..text.layerwise import Block, cross_attention_layers
from ..weights.autograd import with_own_weights
from .attention import AttentionPatches, Boxes, OnAttention
from .blocks import watched_blocks
from .context import KEY, Context, context_of
from .injection import Injection, injection
from .prompt import concept_at
from .run import Callback, Run


@dataclass(frozen=True, eq=False)
class Composer:
    """What the wrappers know. layers: all cross-attentions; watched: those whose maps count; columns: see Recorder."""

    options: ComposerOptions
    boxes: Boxes
    layers: Mapping[Block, int]
    watched: frozenset[Block]
    columns: Sequence[Sequence[int]]
    injected: Injection | None

    def sample(
        self,
        executor: Any,
        guider: Any,
        sigmas: Tensor,
        extra: dict[str, Any],
        callback: Callback | None,
        noise: Tensor,
        latents: Tensor | None = None,
        *args: Any,
        **named: Any,
    ) -> Tensor:
        """SAMPLER_SAMPLE: a run of its own for each sampling, among the options that were made for that alone."""
        model_options = extra["model_options"]
        run = Run(self.options, self.boxes, self.watched, self.columns, sigmas)
        model_options.setdefault("transformer_options", {})[KEY] = Context(run)
        # A second stage that adds no noise has none to exchange.
        if self.options.reinitialise and torch.count_nonzero(noise):
            noisy = _start(executor.class_obj, guider, sigmas, noise, latents)
            noise = run.reinitialise(guider, noisy, noise, model_options)
        try:
            return executor(guider, sigmas, extra, run.counting(callback), noise, latents, *args, **named)
        finally:
            model_options["transformer_options"].pop(KEY, None)

    def before(
        self, executor: Any, x: Tensor, sigma: Tensor, model_options: Mapping[str, Any] = {}, *args: Any, **named: Any
    ) -> Tensor:
        """PREDICT_NOISE: the latents are moved, then the model predicts."""
        run = context_of(model_options.get("transformer_options", {})).run
        if run is not None:
            run.guide(executor.class_obj, x, sigma, model_options)
        return executor(x, sigma, model_options, *args, **named)

    def call(
        self,
        executor: Any,
        x: Tensor,
        t: Tensor,
        concat: Any = None,
        cross: Any = None,
        control: Any = None,
        transformer_options: Mapping[str, Any] = {},
        **named: Any,
    ) -> Tensor:
        """APPLY_MODEL: the model's own call, with other options."""
        injects = self.injected is not None
        context = replace(context_of(transformer_options), pending={})
        patches = AttentionPatches(self.boxes, self.options.isolation, context)
        options = patches.on(transformer_options, self.layers, injects)
        return executor(x, t, concat, cross, control, options, **named)


def _start(sampler: Any, guider: Any, sigmas: Tensor, noise: Tensor, latents: Tensor | None) -> Tensor:
    """The latents that the sampler will begin with."""
    clean = torch.zeros_like(noise) if latents is None else latents
    whole = sampler.max_denoise(guider, sigmas)
    return guider.inner_model.model_sampling.noise_scaling(sigmas[0], noise.clone(), clean, whole)


@dataclass(frozen=True, eq=False)
class Composed:
    """MODEL for a stock sampler. layers: how many of the concepts' layers act in their regions. left_out: concept ->
    how many of its layers of the model do not."""

    model: ComfyModel
    layers: int = 0
    left_out: Mapping[str, int] = field(default_factory=dict)


def apply_composer(
    model: ComfyModel,
    regions: Regions,
    options: ComposerOptions = DEFAULTS,
    rule: OverlapRule = "mean",
    stack: Stack = (),
) -> Composed:
    """A clone of MODEL that samples by LoRA-Composer; the one given is not touched.

    stack: the concepts that are not merged into MODEL; each acts in the regions that name it. With everything in
    `options` switched off, it is plain regional sampling. ValueError for a model without cross-attention, a region
    whose prompt does not tell where its concept is, and a concept that fits no region or not the model.
    """
    check_regions(regions)
    _check_model(model)
    network = model.model.diffusion_model
    columns = _columns(regions, options)
    injected = injection(stack, model, regions) if options.injection and stack else None
    reads_maps = options.guides or options.reinitialise
    on_attention = OnAttention(injected) if reads_maps or injected else None
    sampling = RegionalSampling(
        regions, rule, project=injected.project if injected else project, on_attention=on_attention
    )
    composed = apply_regions(model, sampling)
    if options.guides:
        composed = with_own_weights(composed)
    composer = Composer(
        options=options,
        boxes=Boxes(regions, rule),
        layers=cross_attention_layers(network),
        watched=watched_blocks(network),
        columns=columns,
        injected=injected,
    )
    if on_attention or options.isolation:
        composed.add_wrapper_with_key(WrappersMP.APPLY_MODEL, KEY, composer.call)
    if reads_maps:
        composed.add_wrapper_with_key(WrappersMP.SAMPLER_SAMPLE, KEY, composer.sample)
        composed.add_wrapper_with_key(WrappersMP.PREDICT_NOISE, KEY, composer.before)
    if injected is None:
        return Composed(composed)
    return Composed(composed, len(injected.layers), injected.left_out)


def _check_model(model: ComfyModel) -> None:
    network = model.model.diffusion_model
    if not isinstance(network, UNetModel) or not cross_attention_layers(network):
        raise ValueError(
            f"Composer: expected a UNet with cross-attention (SD1.5, SD2, SDXL), got {base_name(model)}. "
            "Its losses read maps of cross-attention; BlockLoRA Regional Sampling needs none."
        )
    if any(model.get_wrappers(kind, KEY) for kind in (WrappersMP.APPLY_MODEL, WrappersMP.SAMPLER_SAMPLE)):
        raise ValueError("Composer: expected a MODEL that no Composer has changed yet, got one that has.")


def _columns(regions: Regions, options: ComposerOptions) -> list[tuple[int, ...]]:
    columns = [concept_at(region.positive) for region in regions]
    if options.reads_tokens or options.reinitialise:
        for region, places in zip(regions, columns, strict=True):
            if region.weight > 0 and not places:
                raise ValueError(
                    f"{region.label}: expected a prompt that tells where its concept's token is, got "
                    f"{'one that does not' if region.positive is not None else 'none'}. Encode it with BlockLoRA "
                    "Concept Prompt, or switch enhancement, fill and re-initialisation off."
                )
    return columns
