"""Pictures of merged concepts for `bench identity`. After `import_comfyui`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from torch import Tensor

from benchmarks.identity_study.train import Base
from blocklora_core.concept.concept import Stack
from blocklora_core.files.shown import with_words
from blocklora_core.host.evaluate.generate import Sampler, Sampling
from blocklora_core.host.train.collect import CollectJob
from blocklora_core.host.use.apart import ON, apart_or_summed
from blocklora_core.host.weights.patching import apply_merge
from blocklora_core.merge import DEFAULTS, Options
from demo.art import SIZE

SAMPLING = Sampling(steps=8, cfg=1.5, sampler="dpmpp_2m", scheduler="karras", size=SIZE, batch=15)

LOADER = "loader"
"""As a merge's method: what BlockLoRA Loader does with files that carry no Grams."""
LOADER_FUSED = "loader, text encoders fused"
"""The same, but that every text encoder's part reads every prompt."""
TOKENS = "tokens"
"""Tokens alone, without what the files hold of the model's weights."""


@dataclass(frozen=True)
class Shot:
    """One picture to take: its prompt, and the seed of its noise."""

    prompt: str
    seed: int


@dataclass(frozen=True)
class Merge:
    """How a method merges its concepts: a name in the registry or above, and the method's options."""

    method: str
    options: Options = DEFAULTS


def shoot(base: Base, stack: Stack, merge: Merge, shots: Sequence[Shot], sampling: Sampling = SAMPLING) -> Tensor:
    """Pictures (N, H, W, 3) uint8 from one merge of `stack`; from the base where it is empty."""
    model, clip = _merged(base, stack, merge) if stack else (base.model, base.clip)
    sampler = Sampler(model, clip, base.vae, sampling)
    return sampler.pictures([shot.prompt for shot in shots], [shot.seed for shot in shots])


def _merged(base: Base, stack: Stack, merge: Merge) -> tuple[Any, Any]:
    """MODEL and CLIP with the merge."""
    method = merge.method
    if method in (LOADER, LOADER_FUSED):
        without = tuple(with_words(replace(lora, grams=None), lora.concept.name) for lora in stack)
        stack, chosen, _ = apart_or_summed(without, base.model, base.clip, ON, CollectJob(size=SIZE))
        method = chosen if method == LOADER else "gradient_fusion"
    if method == TOKENS:
        stack, method = tuple(lora.with_layers({}) for lora in stack), "per_row"
    merged = apply_merge(stack, base.model, base.clip, method=method, overlap="error", options=merge.options)
    return merged.model, merged.clip
