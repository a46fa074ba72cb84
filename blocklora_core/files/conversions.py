"""Names that ComfyUI's own loader changes before it looks them up, of whole files. Pure string work."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping

_PROCESSOR = re.compile(r"(.+_blocks\.\d+)\.processor\.((?:qkv|proj)_lora[12]?)\.(down|up)\.weight")

# Part of a processor -> the layer of Flux that it changes.
_PROCESSORS: Mapping[str, str] = {
    "qkv_lora1": "img_attn.qkv",
    "proj_lora1": "img_attn.proj",
    "qkv_lora2": "txt_attn.qkv",
    "proj_lora2": "txt_attn.proj",
    "qkv_lora": "linear1_qkv",
    "proj_lora": "linear2",
}

# ComfyUI's loader takes these names only from a file that holds them for Flux' last blocks: those of USO.
_WHOLE = {"single_blocks.37.processor.qkv_lora.up.weight", "double_blocks.18.processor.qkv_lora2.up.weight"}


def converted(names: Iterable[str]) -> dict[str, str]:
    """Name as ComfyUI's loader looks it up -> the tensor's name in the file."""
    names = list(names)
    rename: Callable[[str], str] = _wan_fun
    if set(names) >= _WHOLE:
        rename = _uso
    return {rename(name): name for name in names}


def is_processor(name: str) -> bool:
    """Whether a tensor is of a Flux LoRA in the form of processors, XLabs' own."""
    return _PROCESSOR.fullmatch(name) is not None


def _wan_fun(name: str) -> str:
    return f"lora_unet_{name.removeprefix('lora_unet__')}" if name.startswith("lora_unet__") else name


def _uso(name: str) -> str:
    if match := _PROCESSOR.fullmatch(name):
        return f"diffusion_model.{match[1]}.{_PROCESSORS[match[2]]}.lora_{match[3]}.weight"
    return f"diffusion_model.{name}"
