"""Models of the released sizes, as ComfyUI's own detection finds them, with weights of no memory or random ones."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import comfy.model_patcher
import comfy.supported_models as supported
import torch
from comfy.ldm.flux.model import FluxParams

from benchmarks.common.models import CPU, SDXL, TINY_SDXL, TextFeatures, fill

_FLUX = {
    "image_model": "flux", "in_channels": 16, "out_channels": 16, "patch_size": 2, "vec_in_dim": 768,
    "context_in_dim": 4096, "hidden_size": 3072, "mlp_ratio": 4.0, "num_heads": 24, "depth": 19,
    "depth_single_blocks": 38, "axes_dim": [16, 56, 56], "theta": 10000, "qkv_bias": True, "guidance_embed": True,
}  # fmt: skip
if "txt_ids_dims" in {field.name for field in dataclasses.fields(FluxParams)}:  # Hosts that know Flux.2 ask for it.
    _FLUX["txt_ids_dims"] = []
_Z_IMAGE = {
    "image_model": "lumina2", "patch_size": 2, "in_channels": 16, "dim": 3840, "cap_feat_dim": 2560, "n_layers": 30,
    "qk_norm": True, "n_heads": 30, "n_kv_heads": 30, "axes_dims": [32, 48, 48], "axes_lens": [1536, 512, 512],
    "rope_theta": 256.0, "ffn_dim_multiplier": 8 / 3, "z_image_modulation": True, "time_scale": 1000.0,
    "pad_tokens_multiple": 32,
}  # fmt: skip
_QWEN_IMAGE = {"image_model": "qwen_image", "in_channels": 64, "num_layers": 60}


@dataclass(frozen=True)
class Sized:
    """kind: ComfyUI's class. latents: channels, and frames where there are some. tokens, width: of a prompt; pooled:
    numbers of its one vector, 0 for none."""

    kind: str
    settings: Mapping[str, Any]
    latents: tuple[int, ...]
    tokens: int
    width: int
    pooled: int = 0

    def shape(self, side: int) -> tuple[int, ...]:
        """Of the latents of a square picture, `side` latent pixels wide."""
        return (*self.latents, side, side)

    def clip(self) -> TextFeatures:
        """A text side that encodes every prompt as these sizes say."""
        random = torch.Generator().manual_seed(0)
        features = torch.randn(1, self.tokens, self.width, generator=random)
        return TextFeatures(features, torch.randn(1, self.pooled, generator=random) if self.pooled else None)

    def model(self, dtype: torch.dtype, device: torch.device) -> comfy.model_patcher.ModelPatcher:
        """A MODEL that holds `dtype` and computes in bf16; on the meta device it takes no memory."""
        settings = getattr(supported, self.kind)(dict(self.settings))
        settings.set_inference_dtype(dtype, None if dtype == torch.bfloat16 else torch.bfloat16)
        model = settings.get_model({}, device=device)
        model.requires_grad_(False)
        if device == CPU:
            fill(model.parameters())
        return comfy.model_patcher.ModelPatcher(model, CPU, CPU)


MODELS = {
    "sdxl": Sized("SDXL", SDXL, (4,), tokens=77, width=2048, pooled=1280),
    "flux": Sized("Flux", _FLUX, (16,), tokens=256, width=4096, pooled=768),
    "z-image": Sized("ZImage", _Z_IMAGE, (16,), tokens=64, width=2560),
    "qwen-image": Sized("QwenImage", _QWEN_IMAGE, (16, 1), tokens=64, width=3584),
}
QUICK = {"tiny": Sized("SDXL", TINY_SDXL, (4,), tokens=77, width=96, pooled=1280)}
