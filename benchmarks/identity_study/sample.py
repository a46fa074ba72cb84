"""Pictures of merged concepts for `bench identity`. After `import_comfyui`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from benchmarks.identity_study.train import Base
from blocklora_core.concept.concept import Stack
from blocklora_core.host.evaluate.generate import Sampler, Sampling
from blocklora_core.host.weights.patching import apply_merge
from blocklora_core.merge import DEFAULTS, Options
from demo.art import SIZE

SAMPLING = Sampling(steps=8, cfg=1.5, sampler="dpmpp_2m", scheduler="karras", size=SIZE, batch=15)


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


def shoot(base: Base, stack: Stack, merge: Merge, shots: Sequence[Shot]) -> Tensor:
    """Pictures (N, SIZE, SIZE, 3) uint8 from one merge of `stack`; from the base where it is empty."""
    model, clip = base.model, base.clip
    if stack:
        merged = apply_merge(stack, model, clip, method=merge.method, overlap="error", options=merge.options)
        model, clip = merged.model, merged.clip
    sampler = Sampler(model, clip, base.vae, SAMPLING)
    return sampler.pictures([shot.prompt for shot in shots], [shot.seed for shot in shots])
