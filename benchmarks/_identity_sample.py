"""Pictures of merged concepts for `bench identity`. After `import_comfyui`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import comfy.sample
import torch
from torch import Tensor

import nodes
from benchmarks._identity_train import Base
from blocklora_core.host.patching import apply_merge
from blocklora_core.lora import Stack
from blocklora_core.merge import DEFAULTS, Options
from demo.art import SIZE

STEPS, CFG, SAMPLER, SCHEDULER = 8, 1.5, "dpmpp_2m", "karras"
BATCH = 15


@dataclass(frozen=True)
class Shot:
    """One picture to take: its prompt, and the seed of its noise."""

    prompt: str
    seed: int


@dataclass(frozen=True)
class Merge:
    """How a method merges its concepts: a name in the registry, and the method's options."""

    method: str
    options: Options = DEFAULTS


def noise(shots: Sequence[Shot]) -> Tensor:
    """(N, 4, SIZE / 8, SIZE / 8), each picture's own."""
    shape = (1, 4, SIZE // 8, SIZE // 8)
    return torch.cat([torch.randn(shape, generator=torch.Generator().manual_seed(shot.seed)) for shot in shots])


def encoded(clip: object, prompts: Sequence[str]) -> list[list[object]]:
    """One conditioning that gives each picture of a batch its own prompt."""
    known = {prompt: nodes.CLIPTextEncode().encode(clip, prompt)[0][0][0] for prompt in dict.fromkeys(prompts)}
    return [[torch.cat([known[prompt] for prompt in prompts]), {}]]


def shoot(base: Base, stack: Stack, merge: Merge, shots: Sequence[Shot]) -> Tensor:
    """Pictures (N, SIZE, SIZE, 3) in 0..1 from one merge of `stack`; from the base where it is empty."""
    model, clip = base.model, base.clip
    if stack:
        merged = apply_merge(stack, model, clip, merge.method, "error", merge.options)
        model, clip = merged.model, merged.clip
    return torch.cat(list(_batches(base, model, clip, shots)))


def _batches(base: Base, model: object, clip: object, shots: Sequence[Shot]) -> Iterator[Tensor]:
    for start in range(0, len(shots), BATCH):
        batch = shots[start : start + BATCH]
        positive = encoded(clip, [shot.prompt for shot in batch])
        negative = encoded(clip, [""] * len(batch))
        latents = torch.zeros(len(batch), 4, SIZE // 8, SIZE // 8)
        done = comfy.sample.sample(
            model, noise(batch), STEPS, CFG, SAMPLER, SCHEDULER, positive, negative, latents, disable_pbar=True
        )
        yield base.vae.decode(done).clamp(0, 1)
