"""Dialects of LoRA tensor names. Pure string work; no tensor is touched."""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Literal

Role = Literal["down", "up", "alpha", "mid", "dora_scale", "foreign"]
"""Part of an adapter; "foreign" is a part of an adapter that is not a LoRA (see `foreign_kind`)."""

# Suffix -> role, tried in this order. Kohya; PEFT; Mochi; diffusers;
# Mix-of-Show (old ED-LoRA files write `to_q_lora.down.weight`, newer ones use kohya's suffix on a dotted
# stem).
_SUFFIXES: tuple[tuple[str, Role], ...] = (
    (".lora_down.weight", "down"),
    (".lora_up.weight", "up"),
    (".lora_mid.weight", "mid"),
    (".alpha", "alpha"),
    (".dora_scale", "dora_scale"),
    (".lora_A.weight", "down"),
    (".lora_B.weight", "up"),
    (".lora_A", "down"),
    (".lora_B", "up"),
    (".lora_magnitude_vector.weight", "dora_scale"),
    (".lora_magnitude_vector", "dora_scale"),
    (".lora_linear_layer.down.weight", "down"),
    (".lora_linear_layer.up.weight", "up"),
    (".lora.down.weight", "down"),
    (".lora.up.weight", "up"),
    ("_lora.down.weight", "down"),
    ("_lora.up.weight", "up"),
)

# PEFT writes the adapter's name into a tensor's, unless it saves the file itself.
_ADAPTER = re.compile(r"(\.lora_(?:A|B|magnitude_vector))\.[^.]+(\.weight)$")

# Last words of tensors that belong to other adapters -> what to call them.
_FOREIGN: tuple[tuple[str, str], ...] = (
    (r"hada_(w|t)\w*", "LoHa"),
    (r"lokr_\w+", "LoKr"),
    (r"oft_\w+|boft_\w+|rescale", "OFT"),
    (r"(a|b)[12]\.weight|glora_\w+", "GLoRA"),
    (r"reshape_weight", "reshaping LoRA"),
    (r"diff|diff_b|set_weight|w_norm|b_norm", "full weight difference"),
)

_ANY_FOREIGN = re.compile(rf".+\.(?:{'|'.join(words for words, _ in _FOREIGN)})")

_FOREIGN_PATTERNS = tuple((re.compile(rf"(.+)\.(?:{words})"), kind) for words, kind in _FOREIGN)

_UNET_BLOCKS = r"(?:down_blocks|mid_block|up_blocks)\."

_UNET_PARTS = rf"(?:{_UNET_BLOCKS}|(?:conv_in|conv_out|time_embedding|add_embedding)(?:\.|$))"

# Dotted diffusers, PEFT or Mix-of-Show prefix -> kohya prefix; what follows takes underscores.
_KOHYA_PREFIXES = tuple(
    (re.compile(pattern), prefix)
    for pattern, prefix in (
        (rf"unet\.(?:base_model\.model\.)?(?={_UNET_PARTS})", "lora_unet_"),
        (rf"base_model\.model\.(?={_UNET_PARTS})", "lora_unet_"),
        (rf"(?={_UNET_BLOCKS})", "lora_unet_"),
        (r"text_encoder\.(?:base_model\.model\.)?", "lora_te_"),
        (r"text_encoder_(\d)\.(?:base_model\.model\.)?", r"lora_te\1_"),
        (r"(?:base_model\.model\.)?(?=text_model\.)", "lora_te_"),
    )
)

# PEFT prefix of models that are no UNets -> the generic prefix that ComfyUI has for them.
_GENERIC_PREFIXES = tuple(
    (re.compile(pattern), prefix)
    for pattern, prefix in (
        (r"(?:transformer\.)?base_model\.model\.(?=(?:single_)?transformer_blocks\.)", "transformer."),
        (r"base_model\.model\.(?=(?:transformer|diffusion_model)\.)", ""),
    )
)


# Files of one trainer share their names, and each is asked for several times.
@lru_cache(maxsize=2**14)
def parse(name: str) -> tuple[str, Role] | None:
    """(stem, role) of a tensor name, or None when it belongs to no adapter that we know."""
    name = _ADAPTER.sub(r"\1\2", name)
    for suffix, role in _SUFFIXES:
        if name.endswith(suffix) and len(name) > len(suffix):
            return name[: -len(suffix)], role
    if _ANY_FOREIGN.fullmatch(name):
        return next(match[1] for pattern, _ in _FOREIGN_PATTERNS if (match := pattern.fullmatch(name))), "foreign"
    return None


@lru_cache(maxsize=2**14)
def foreign_kind(name: str) -> str | None:
    """What kind of adapter other than LoRA the tensor `name` belongs to, for messages; None when to none."""
    if _ANY_FOREIGN.fullmatch(name) is None:  # As most are, in one look instead of seven.
        return None
    return next(kind for pattern, kind in _FOREIGN_PATTERNS if pattern.fullmatch(name))


def to_kohya(stem: str) -> str | None:
    """Kohya's stem for a dotted diffusers, PEFT or Mix-of-Show stem; None when `stem` is none of these.

    `unet.down_blocks.0.attentions.0.transformer_blocks.0.attn1.processor.to_out` becomes
    `lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn1_to_out_0`.
    """
    name = stem.replace(".processor.", ".")
    for pattern, prefix in _KOHYA_PREFIXES:
        if match := pattern.match(name):
            path = re.sub(r"\.to_out$", ".to_out.0", name[match.end() :])
            return match.expand(prefix) + path.replace(".", "_")
    return None


def to_host(stem: str) -> str:
    """The stem that ComfyUI's key maps have for the layer that a trainer calls `stem`.

    Kohya's for UNets and text encoders, a generic one (`transformer.x.y`, `diffusion_model.x.y`) for other models.
    A stem that is in no dialect we know stays as it is.
    """
    kohya = to_kohya(stem)
    if kohya is not None:
        return kohya
    found = (pattern.sub(prefix, stem, count=1) for pattern, prefix in _GENERIC_PREFIXES if pattern.match(stem))
    return next(found, stem)
