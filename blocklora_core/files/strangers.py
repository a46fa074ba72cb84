"""Files that are no LoRA that can be read, known by their tensors' names, each with what takes it."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import NamedTuple

from . import dialects
from .conversions import is_processor


class Stranger(NamedTuple):
    """pattern: of one tensor's name, from its start. what: the file's kind, and what takes it."""

    pattern: re.Pattern[str]
    what: str


_FLUX_CONTROL = frozenset({"img_in.lora_A.weight", "single_blocks.0.norm.key_norm.scale"})

_STUDIO = r"(?:single_)?blocks\.\d+\.(?:attn\.[ab]_to_(?:qkv|out)|ff_[ab]\.\d|norm1_[ab]\.|to_qkv_mlp|norm\.linear)"

# LoRAs and the like. Tried first: these names are clearer than those of whole models.
_ADAPTERS = tuple(
    Stranger(re.compile(pattern), what)
    for pattern, what in (
        (
            r".+\.(?:on_input|ia3_l(?:\.weight)?)$",
            "an IA3, a scale of activations, which no loader of ComfyUI applies. Train a LoRA, LoHa or LoKr instead",
        ),
        (
            r"(?:unet|text_encoder):\d+:(?:up|down)$",
            "a LoRA of cloneofsimo's lora, a numbered list without names, which no loader of ComfyUI applies. Convert "
            "it with that project's own script",
        ),
        (
            rf"(?:base_model\.model\.)?{_STUDIO}.*\.lora_",
            "a Flux LoRA with DiffSynth-Studio's names, which no loader of ComfyUI applies. Convert it with "
            "DiffSynth-Studio's own converter",
        ),
        (r"lora_controlnet$", "a control LoRA (load it with Load ControlNet Model)"),
        (r"(?:image_proj|ip_adapter)\.", "an IP-Adapter (load it with an IP-Adapter node pack)"),
        (r".*motion_modules\.", "an AnimateDiff motion module (load it with an AnimateDiff node pack)"),
    )
)

_CHECKPOINT = "a checkpoint (load it with Load Checkpoint)"
_DIFFUSION = "a diffusion model (load it with Load Diffusion Model)"
_CONTROL = "a ControlNet (load it with Load ControlNet Model)"
_EMBEDDING = "a textual inversion embedding (name it in the prompt)"
_TEXT = "a text encoder (load it with Load CLIP)"

# Whole models: what they are only where the file holds no layer of an adapter.
_MODELS = tuple(
    Stranger(re.compile(pattern), what)
    for pattern, what in (
        (r"(?:model\.diffusion_model|first_stage_model|cond_stage_model|conditioner|model_ema)\.", _CHECKPOINT),
        (r"(?:control_model|controlnet\w*|input_hint_block|zero_convs|adapter\.body)\.", _CONTROL),
        (r"(?:emb_params|clip_[lg]|t5xxl|string_to_param/.*|<[^/]*>)$", _EMBEDDING),
        (r"(?:text_model|shared|encoder\.block|model\.(?:layers|embed_tokens))\.", _TEXT),
        (r"vision_model\.", "a CLIP vision model (load it with Load CLIP Vision)"),
        (r"(?:encoder|decoder|quant_conv|post_quant_conv)\.", "a VAE (load it with Load VAE)"),
        (
            r"(?:diffusion_model|double_blocks|single_blocks|joint_blocks|(?:single_)?transformer_blocks|down_blocks|"
            r"mid_block|up_blocks|input_blocks|blocks|layers|img_in|x_embedder)\.",
            _DIFFUSION,
        ),
    )
)  # fmt: skip


def name_of(names: Iterable[str]) -> str | None:
    """What a file with such tensors is, for messages; None when it may be a LoRA that can be read."""
    names = list(names)
    if set(names) >= _FLUX_CONTROL:
        return (
            "a control LoRA for Flux, which enlarges the model's first layer. Put ComfyUI's own Load LoRA node before "
            "BlockLoRA Merge: that takes it"
        )
    if any(map(is_processor, names)):
        return (
            "a Flux LoRA of XLabs, whose names no loader of ComfyUI applies. Use XLabs' own nodes for it, or convert "
            "it to kohya's names"
        )
    found = _first(_ADAPTERS, names)
    return found if found or any(map(_is_part, names)) else _first(_MODELS, names)


def _is_part(name: str) -> bool:
    parsed = dialects.parse(name)
    return parsed is not None and parsed[1] != "alpha"


def _first(kinds: Iterable[Stranger], names: list[str]) -> str | None:
    return next((kind.what for kind in kinds if any(map(kind.pattern.match, names))), None)
