"""From a file's key stems to the weights of a loaded model, and back."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any
from weakref import WeakKeyDictionary

import comfy.lora

from .. import keys
from ..lora import BlockLoRA
from .handles import ComfyClip, ComfyModel


@dataclass(frozen=True)
class Weights:
    """A loaded model's weights: every key stem that ComfyUI accepts -> weight name, and weight name -> shape."""

    stems: Mapping[str, str]
    shapes: Mapping[str, tuple[int, ...]]


_LISTED: WeakKeyDictionary[Any, Weights] = WeakKeyDictionary()


def _listed(module: Any, list_stems: Callable[[Any, dict[str, Any]], dict[str, Any]]) -> Weights:
    # Once for each loaded model: its names never change, and listing them takes longer than a merge.
    if module not in _LISTED:
        stems = {stem: name for stem, name in list_stems(module, {}).items() if isinstance(name, str)}
        _LISTED[module] = Weights(stems, {name: tuple(weight.shape) for name, weight in module.state_dict().items()})
    return _LISTED[module]


def model_weights(model: ComfyModel) -> Weights:
    """MODEL's."""
    return _listed(model.model, comfy.lora.model_lora_keys_unet)


def clip_weights(clip: ComfyClip) -> Weights:
    """CLIP's."""
    return _listed(clip.cond_stage_model, comfy.lora.model_lora_keys_clip)


def model_stems(model: ComfyModel) -> Mapping[str, str]:
    """Every key stem that ComfyUI accepts for MODEL -> weight name."""
    return model_weights(model).stems


def clip_stems(clip: ComfyClip) -> Mapping[str, str]:
    """Every key stem that ComfyUI accepts for CLIP -> weight name."""
    return clip_weights(clip).stems


def preferred_stems(stems: Mapping[str, str]) -> dict[str, str]:
    """Weight name -> the stem that our files use for it."""
    candidates: dict[str, list[str]] = defaultdict(list)
    for stem, name in stems.items():
        candidates[name].append(stem)
    return {name: keys.preferred(accepted) for name, accepted in candidates.items()}


def on_weights(lora: BlockLoRA, stems: Mapping[str, str]) -> tuple[BlockLoRA, list[str]]:
    """The concept with its layers named by weight, and the stems that the model does not have."""
    known = {stem: stems[stem] for stem in lora.layers if stem in stems}
    unknown = [stem for stem in lora.layers if stem not in stems]
    fitting = lora.with_layers({stem: lora.layers[stem] for stem in known})
    return fitting.renamed_layers(known), unknown
