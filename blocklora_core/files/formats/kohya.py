"""kohya's files (`lora_unet_...`, `lora_te_...`), and all that use ComfyUI's generic names: stems stay."""

from __future__ import annotations

from ...concept.concept import BlockLoRA
from .source import Source, plain


def owns(_: Source) -> bool:
    """Whatever no other format claims."""
    return True


def read(source: Source) -> BlockLoRA:
    """alpha / rank as the file says."""
    return plain(source)
