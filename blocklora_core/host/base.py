"""Names of base architectures, as files carry them."""

from __future__ import annotations

from .comfy import ComfyModel

# Millions of parameters of the released diffusion models; a model of another size gets its size in the name.
_RELEASED = {"sd15": 860, "sd20": 866, "sdxl": 2567, "ssd1b": 1300}


def base_name(model: ComfyModel) -> str:
    """The architecture of a ComfyUI MODEL, such as "sd15", or "sd15-26M" for a UNet of another size.

    Files of one base name have the same layers with the same shapes.
    """
    kind = type(model.model.model_config).__name__.lower()
    millions = round(sum(p.numel() for p in model.model.diffusion_model.parameters()) / 1e6)
    return kind if millions == _RELEASED.get(kind) else f"{kind}-{millions}M"
