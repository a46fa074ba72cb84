"""MODEL of the shapes of SD1.5 or SDXL, and SD1.5's CLIP, with random weights. Import after `import_comfyui`."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import comfy.model_patcher
import comfy.sd
import comfy.sd1_clip
import comfy.supported_models
import comfy.supported_models_base
import torch
from torch import Tensor, nn

CPU = torch.device("cpu")

SD15 = {
    "image_size": 32,
    "in_channels": 4,
    "out_channels": 4,
    "model_channels": 320,
    "num_res_blocks": [2, 2, 2, 2],
    "channel_mult": [1, 2, 4, 4],
    "transformer_depth": [1, 1, 1, 1, 1, 1, 0, 0],
    "transformer_depth_middle": 1,
    "transformer_depth_output": [1, 1, 1, 1, 1, 1, 1, 1, 1, 0, 0, 0],
    "context_dim": 768,
    "num_heads": 8,
    "num_head_channels": -1,
    "use_spatial_transformer": True,
    "use_linear_in_transformer": False,
    "adm_in_channels": None,
    "use_temporal_attention": False,
    "legacy": False,
}
TINY = SD15 | {
    "model_channels": 64,
    "num_res_blocks": [1],
    "channel_mult": [1],
    "transformer_depth": [1],
    "transformer_depth_output": [1, 1],
    "context_dim": 96,
}
# The sizes of ComfyUI's own detection for the released SDXL.
SDXL = SD15 | {
    "num_res_blocks": [2, 2, 2],
    "channel_mult": [1, 2, 4],
    "transformer_depth": [0, 0, 2, 2, 10, 10],
    "transformer_depth_middle": 10,
    "transformer_depth_output": [0, 0, 0, 2, 2, 2, 10, 10, 10],
    "context_dim": 2048,
    "num_heads": -1,
    "num_head_channels": 64,
    "use_linear_in_transformer": True,
    "num_classes": "sequential",
    "adm_in_channels": 2816,
}
TINY_SDXL = SDXL | {
    "num_res_blocks": [1],
    "channel_mult": [1],
    "transformer_depth": [2],
    "transformer_depth_middle": 1,
    "transformer_depth_output": [2, 2],
    "context_dim": 96,
}
NOISE = 0.02


def fill(parameters: Iterable[torch.Tensor]) -> None:
    """Noise that float16 holds exactly. Repeating one stretch of it is far quicker than drawing 860 million numbers."""
    noise = (torch.randn(1_000_003, generator=torch.Generator().manual_seed(0)) * NOISE).half()
    for parameter in parameters:
        flat = parameter.data.view(-1)
        for start in range(0, flat.numel(), noise.numel()):
            flat[start : start + noise.numel()] = noise[: flat.numel() - start]


def build_model(config: dict[str, Any], dtype: torch.dtype = torch.float16) -> comfy.model_patcher.ModelPatcher:
    """A MODEL with random weights, on the CPU."""
    sdxl = config["adm_in_channels"] == SDXL["adm_in_channels"]
    settings = (comfy.supported_models.SDXL if sdxl else comfy.supported_models.SD15)(dict(config))
    settings.set_inference_dtype(dtype, None)
    model = settings.get_model({}, device=CPU)
    model.requires_grad_(False)
    fill(model.parameters())
    return comfy.model_patcher.ModelPatcher(model, CPU, CPU)


class _Nothing(nn.Module):
    dtypes = frozenset({torch.float32})

    def __init__(self, features: Tensor, pooled: Tensor | None):
        super().__init__()
        self.anchor, self.features, self.pooled = nn.Parameter(torch.zeros(1)), features, pooled

    def reset_clip_options(self) -> None: ...

    def encode_token_weights(self, _prompt: str) -> tuple[Tensor, Tensor | None]:
        return self.features, self.pooled


class TextFeatures:
    """What a CLIP socket carries, for a text side that is frozen: every prompt has the same features (1, T, width)."""

    layer_idx = None
    tokenizer = type("Tokenizer", (), {})()

    def __init__(self, features: Tensor, pooled: Tensor | None = None):
        self.cond_stage_model = _Nothing(features, pooled)
        self.patcher = comfy.model_patcher.ModelPatcher(self.cond_stage_model, CPU, CPU)
        self.tokenize: Callable[[str], str] = str


def build_clip() -> comfy.sd.CLIP:
    """SD1.5's CLIP with weights of zero, which is enough for patching, cloning and encoding."""
    clip = comfy.sd.CLIP(
        comfy.supported_models_base.ClipTarget(comfy.sd1_clip.SD1Tokenizer, comfy.sd1_clip.SD1ClipModel),
        embedding_directory=[],
    )
    for parameter in clip.cond_stage_model.parameters():
        parameter.data.zero_()
    return clip
