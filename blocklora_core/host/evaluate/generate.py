"""Pictures for an evaluation: one for each prompt, whose noise depends on its place alone."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import comfy.model_management
import comfy.sample
import torch
from torch import Tensor

from ..comfy import ComfyClip, ComfyConditioning, ComfyModel, ComfyVae
from ..train.collect import latent_shape

OnStep = Callable[[int], None]
"""Told after each sampling step how many pictures took it. Raises to stop."""


@dataclass(frozen=True)
class Sampling:
    """How to sample; the numbers are the papers'. size: height and width in pixels, or one number for a square.
    batch: pictures at a time.

    Picture number i has the noise of seed + i, whatever is sampled with it. Raises ValueError out of range.
    """

    steps: int = 20
    cfg: float = 7.5
    sampler: str = "dpmpp_2m"
    scheduler: str = "normal"
    size: int | tuple[int, int] = 512
    seed: int = 0
    batch: int = 4

    def __post_init__(self) -> None:
        for name in ("steps", "size", "batch"):
            given = getattr(self, name)
            if min(given if isinstance(given, tuple) else (given,)) < 1:
                raise ValueError(f"Sampling: expected {name} of at least 1, got {given}.")


def encode(clip: ComfyClip, prompt: str) -> ComfyConditioning:
    """What CLIP Text Encode gives for a prompt."""
    found: ComfyConditioning = clip.encode_from_tokens_scheduled(clip.tokenize(prompt))
    return found


class Sampler:
    """Samples from one MODEL and CLIP; each prompt is encoded once. on_step: may be None."""

    def __init__(
        self, model: ComfyModel, clip: ComfyClip, vae: ComfyVae, sampling: Sampling, on_step: OnStep | None = None
    ):
        self.model, self.clip, self.vae = model, clip, vae
        self.sampling, self.on_step = sampling, on_step
        self._encoded: dict[str, ComfyConditioning] = {}

    @torch.inference_mode()
    def pictures(self, prompts: Sequence[str | ComfyConditioning], seeds: Sequence[int] | None = None) -> Tensor:
        """One picture a prompt: (G, H, W, 3) uint8 on the CPU, as it would be saved. The negative prompt is empty.

        prompts: texts, or prompts that are encoded already.
        seeds: of each picture's noise, in place of seed + place. InterruptProcessingException when the user cancels.
        """
        encoded = [self._encode(prompt) for prompt in prompts]
        own = range(self.sampling.seed, self.sampling.seed + len(prompts)) if seeds is None else seeds
        pictures: dict[int, Tensor] = {}
        for places in _batches(encoded, self.sampling.batch):
            latents = self._sample(_batched([encoded[at] for at in places]), [own[at] for at in places])
            pictures |= zip(places, _decode(self.vae, latents), strict=True)
        return torch.stack([pictures[at] for at in range(len(prompts))])

    def _encode(self, prompt: str | ComfyConditioning) -> ComfyConditioning:
        if not isinstance(prompt, str):
            return prompt
        if prompt not in self._encoded:
            self._encoded[prompt] = encode(self.clip, prompt)
        return self._encoded[prompt]

    def _sample(self, positive: ComfyConditioning, seeds: Sequence[int]) -> Tensor:
        how, shape = self.sampling, latent_shape(self.model, self.sampling.size)
        noise = torch.stack([_noise(shape, seed) for seed in seeds])

        def after(_step: int, _denoised: Tensor, _noisy: Tensor, _steps: int) -> None:
            comfy.model_management.throw_exception_if_processing_interrupted()
            if self.on_step is not None:
                self.on_step(len(seeds))

        latents: Tensor = comfy.sample.sample(
            self.model,
            noise,
            how.steps,
            how.cfg,
            how.sampler,
            how.scheduler,
            positive,
            self._encode(""),
            torch.zeros_like(noise),
            callback=after,
            disable_pbar=True,
            seed=seeds[0],
        )
        return latents


def _batches(conditionings: Sequence[ComfyConditioning], most: int) -> Iterator[list[int]]:
    """Places of pictures that can be sampled at a time, at most so many."""
    groups: dict[Any, list[int]] = {}
    for at, conditioning in enumerate(conditionings):
        groups.setdefault(_kind(conditioning), []).append(at)
    for group in groups.values():
        yield from (group[start : start + most] for start in range(0, len(group), most))


def _kind(conditioning: ComfyConditioning) -> Any:
    """Equal for conditionings that can be one batch: plain ones of one shape, else only the very same."""
    (tensor, extra), *others = conditioning
    if others or extra.keys() - {"pooled_output"}:
        return id(conditioning)
    pooled = extra.get("pooled_output")
    return tensor.shape, None if pooled is None else pooled.shape


def _batched(conditionings: Sequence[ComfyConditioning]) -> ComfyConditioning:
    """One conditioning for pictures that have one each, all of one kind."""
    first = conditionings[0]
    if all(one is first for one in conditionings):
        return first
    extras = [one[0][1].get("pooled_output") for one in conditionings]
    pooled = {} if extras[0] is None else {"pooled_output": torch.cat(extras)}
    return [[torch.cat([one[0][0] for one in conditionings]), pooled]]


def _noise(shape: torch.Size, seed: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed % 2**64))


def _decode(vae: ComfyVae, latents: Tensor) -> Tensor:
    pictures: Tensor = vae.decode(latents)
    # A video VAE gives (B, frames, H, W, 3), here of one frame.
    pictures = pictures.reshape(-1, *pictures.shape[-3:])[..., :3]
    return (pictures.clamp(0, 1) * 255).round().byte().cpu()
