"""From a file's key stems to the weights of a loaded model, and back."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from typing import Any
from weakref import WeakKeyDictionary

import comfy.lora

from .. import keys
from ..lora import BlockLoRA
from .handles import ComfyClip, ComfyModel

_STEMS: WeakKeyDictionary[Any, dict[str, str]] = WeakKeyDictionary()


def model_stems(model: ComfyModel) -> dict[str, str]:
    """Every key stem that ComfyUI accepts for MODEL -> weight name. Listed once for each loaded model."""
    known = _STEMS.get(model.model)
    if known is None:
        listed = comfy.lora.model_lora_keys_unet(model.model, {})
        known = _STEMS[model.model] = {stem: name for stem, name in listed.items() if isinstance(name, str)}
    return known


def clip_stems(clip: ComfyClip) -> dict[str, str]:
    """Every key stem that ComfyUI accepts for CLIP -> weight name."""
    return comfy.lora.model_lora_keys_clip(clip.cond_stage_model, {})


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
