"""Names of base architectures, as files carry them."""

from __future__ import annotations

from collections.abc import Iterator

from torch import Tensor, nn

from .comfy import ComfyModel

# ComfyUI's architecture and millions of parameters of the released diffusion models -> name; a model of another size
# gets its size in the name. Flux' variants differ in one or two layers.
_RELEASED = {
    ("sd15", 860): "sd15", ("sd20", 866): "sd20", ("sdxl", 2567): "sdxl", ("ssd1b", 1300): "ssd1b",
    ("flux", 11901): "flux", ("flux", 11902): "flux", ("fluxinpaint", 11902): "flux", ("fluxschnell", 11891): "flux",
    ("sd3", 2028): "sd3", ("sd3", 2243): "sd35medium", ("sd3", 8057): "sd35large",
}  # fmt: skip


# Of a picture that a model is usually asked for: height and width in pixels.
_SIZES = {"sd15": 512, "sd20": 512}
_SIZE, _TINY_SIZE = 1024, 96

# Parameters: no released model is so small.
_TINY = 100e6


def usual_size(model: ComfyModel) -> int:
    """Height and width in pixels of the pictures that a ComfyUI MODEL is usually asked for."""
    if sum(weight.numel() for weight in model.model.diffusion_model.parameters()) < _TINY:
        return _TINY_SIZE
    return _SIZES.get(base_name(model).partition("-")[0], _SIZE)


def small_weights(module: nn.Module) -> Iterator[Tensor]:
    """Norms and biases: they tell a checkpoint from another, and merges that are still in the weights rarely change
    them."""
    return (weight for _, weight in sorted(module.named_parameters()) if weight.ndim == 1 and weight.numel())


def base_name(model: ComfyModel) -> str:
    """The architecture of a ComfyUI MODEL, such as "sd15", or "sd15-26M" for a model of another size.

    Files of one base name have the same layers with the same shapes.
    """
    kind = type(model.model.model_config).__name__.lower()
    millions = round(sum(p.numel() for p in model.model.diffusion_model.parameters()) / 1e6)
    return _RELEASED.get((kind, millions), f"{kind}-{millions}M")
