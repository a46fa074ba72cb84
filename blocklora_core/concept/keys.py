"""Dialects of LoRA tensor names. Pure string work; no tensor is touched.

A tensor name is a stem, which names the layer, and a suffix, which names the role. Trainers differ in both.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import lru_cache

_TEXT_PREFIXES = ("lora_te", "lora_prior_te", "text_encoder", "text_model.", "clip_", "t5xxl.", "hydit_clip.")

# A text encoder's weight, as the host names it: the encoder's name comes first.
_ENCODER_WEIGHT = re.compile(r"(?!diffusion_model\.|model\.)\w+\.transformer\.")

# Which of the stems that a host accepts for one weight is written to a file: the first pattern that matches.
_PREFERENCE = tuple(
    re.compile(pattern)
    for pattern in (
        r"lora_unet_(down_blocks|mid_block|up_blocks)_",
        r"lora_unet_(conv_in|conv_out|time_embedding|add_embedding|conv_norm_out)(_|$)",
        r"lora_te_",
        r"lora_te1_",
        r"lora_te\d+_",
        r"lora_unet_(input_blocks|middle_block|output_blocks)_",
        r"diffusion_model\.",
        r"text_encoders\.",
    )
)

_GEGLU = re.compile(r"(^|[._])ff[._]net[._]0[._]proj(\.weight)?$")

# MMDiTs hold Q, K and V in one weight, in this order and of one size.
_FUSED_QKV = re.compile(r"(^|[._])attn2?[._]qkv(\.weight)?$")


def preferred(candidates: Iterable[str]) -> str:
    """The stem to write, among all that a host accepts for one weight.

    Kohya's with diffusers block names (`lora_unet_down_blocks_...`, `lora_te_...`) because every loader
    reads them; kohya's with the original block names only if there is no other; else ComfyUI's generic name
    (`diffusion_model.x.y`). ValueError when there is no candidate.
    """
    names = sorted(set(candidates))
    if not names:
        raise ValueError("Expected at least one name for the weight, got none. The host cannot patch it.")
    return min(names, key=_preference)


# A merge asks this of every layer of every file, and the files share their names.
@lru_cache(maxsize=2**14)
def is_text(name: str) -> bool:
    """Whether a stem or a ComfyUI weight name belongs to a text encoder."""
    return name.startswith(_TEXT_PREFIXES) or _ENCODER_WEIGHT.match(name) is not None


def is_geglu(name: str) -> bool:
    """Whether a stem or weight name is a feed-forward's first projection: values, then as many gates."""
    return _GEGLU.search(name) is not None


# As is_text.
@lru_cache(maxsize=2**14)
def fused_parts(name: str) -> int:
    """Equal parts of the weight's rows that rows.py deals out separately, so that every slot gets some of each:
    2 for a GEGLU projection (values, gates), 3 for a fused Q, K and V, else 1."""
    if is_geglu(name):
        return 2
    return 3 if _FUSED_QKV.search(name) else 1


def _preference(name: str) -> tuple[int, str]:
    found = (rank for rank, pattern in enumerate(_PREFERENCE) if pattern.match(name))
    return next(found, len(_PREFERENCE)), name
