"""Pictures for an evaluation: one for each prompt, whose noise depends on its place alone."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import comfy.model_management
import comfy.sample
import torch
from torch import Tensor

from .collect import latent_shape
from .handles import ComfyClip, ComfyModel, ComfyVae

Conditioning = list[Any]
"""What CLIP Text Encode gives: [[tensor, dict], ...]."""

OnStep = Callable[[int], None]
"""Told after each sampling step how many pictures took it. Raises to stop."""


@dataclass(frozen=True)
class Sampling:
    """How to sample; the numbers are the papers'. size: height and width in pixels. batch: pictures at a time.

    Picture number i has the noise of seed + i, whatever is sampled with it. Raises ValueError out of range.
    """

    steps: int = 20
    cfg: float = 7.5
    sampler: str = "dpmpp_2m"
    scheduler: str = "normal"
    size: int = 512
    seed: int = 0
    batch: int = 4

    def __post_init__(self) -> None:
        for name in ("steps", "size", "batch"):
            if getattr(self, name) < 1:
                raise ValueError(f"Sampling: expected {name} of at least 1, got {getattr(self, name)}.")


@torch.inference_mode()
def sample_pictures(
    model: ComfyModel,
    clip: ComfyClip,
    vae: ComfyVae,
    prompts: Sequence[str],
    sampling: Sampling,
    on_step: OnStep | None = None,
) -> Tensor:
    """One picture a prompt: (G, H, W, 3) uint8 on the CPU, as it would be saved. The negative prompt is empty.

    InterruptProcessingException when the user cancels.
    """
    encoded = {prompt: _encode(clip, prompt) for prompt in dict.fromkeys([*prompts, ""])}
    pictures: dict[int, Tensor] = {}
    for places in _batches([encoded[prompt] for prompt in prompts], sampling.batch):
        positive = _joined([encoded[prompts[at]] for at in places])
        latents = _sample(model, positive, encoded[""], places, sampling, on_step)
        pictures |= zip(places, _decode(vae, latents), strict=True)
    return torch.stack([pictures[at] for at in range(len(prompts))])


def _encode(clip: ComfyClip, prompt: str) -> Conditioning:
    found: Conditioning = clip.encode_from_tokens_scheduled(clip.tokenize(prompt))
    return found


def _batches(conditionings: Sequence[Conditioning], most: int) -> Iterator[list[int]]:
    """Places of pictures that can be sampled at a time, at most so many."""
    groups: dict[Any, list[int]] = {}
    for at, conditioning in enumerate(conditionings):
        groups.setdefault(_kind(conditioning), []).append(at)
    for group in groups.values():
        yield from (group[start : start + most] for start in range(0, len(group), most))


def _kind(conditioning: Conditioning) -> Any:
    """Equal for conditionings that can be one batch: plain ones of one shape, else only the very same."""
    (tensor, extra), *others = conditioning
    if others or extra.keys() - {"pooled_output"}:
        return id(conditioning)
    pooled = extra.get("pooled_output")
    return tensor.shape, None if pooled is None else pooled.shape


def _joined(conditionings: Sequence[Conditioning]) -> Conditioning:
    """One conditioning for pictures that have one each, all of one kind."""
    first = conditionings[0]
    if all(one is first for one in conditionings):
        return first
    extras = [one[0][1].get("pooled_output") for one in conditionings]
    pooled = {} if extras[0] is None else {"pooled_output": torch.cat(extras)}
    return [[torch.cat([one[0][0] for one in conditionings]), pooled]]


def _sample(
    model: ComfyModel, positive: Conditioning, negative: Conditioning, places: Sequence[int], sampling: Sampling,
    on_step: OnStep | None,
) -> Tensor:  # fmt: skip
    shape = latent_shape(model, sampling.size)
    noise = torch.stack([_noise(shape, sampling.seed + at) for at in places])

    def after(_step: int, _denoised: Tensor, _noisy: Tensor, _steps: int) -> None:
        comfy.model_management.throw_exception_if_processing_interrupted()
        if on_step is not None:
            on_step(len(places))

    latents: Tensor = comfy.sample.sample(
        model, noise, sampling.steps, sampling.cfg, sampling.sampler, sampling.scheduler, positive, negative,
        torch.zeros_like(noise), callback=after, disable_pbar=True, seed=sampling.seed + places[0],
    )  # fmt: skip
    return latents


def _noise(shape: torch.Size, seed: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed % 2**64))


def _decode(vae: ComfyVae, latents: Tensor) -> Tensor:
    pictures: Tensor = vae.decode(latents)
    # A video VAE gives (B, frames, H, W, 3), here of one frame.
    pictures = pictures.reshape(-1, *pictures.shape[-3:])[..., :3]
    return (pictures.clamp(0, 1) * 255).round().byte().cpu()
