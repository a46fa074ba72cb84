"""Tiny models of other architectures with random weights, and a text side that is as small."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import comfy.supported_models as architectures
import torch
from comfy.ldm.flux.model import FluxParams
from torch import nn

from tests.host.dynamic import patcher_of, with_weights

CPU = torch.device("cpu")

_UNET = {
    "image_size": 32, "in_channels": 4, "out_channels": 4, "model_channels": 64, "num_res_blocks": [1, 1],
    "channel_mult": [1, 2], "transformer_depth": [0, 1], "transformer_depth_middle": 1,
    "transformer_depth_output": [0, 0, 1, 1], "context_dim": 96, "num_head_channels": 32,
    "use_spatial_transformer": True, "use_linear_in_transformer": True, "use_temporal_attention": False,
    "legacy": False,
}  # fmt: skip
_SDXL = {**_UNET, "adm_in_channels": 2816, "num_classes": "sequential"}
_SD15 = {**_UNET, "adm_in_channels": None, "use_linear_in_transformer": False}
_SD3 = {
    "in_channels": 16, "patch_size": 2, "depth": 2, "input_size": None, "pos_embed_max_size": 16,
    "pos_embed_scaling_factor": None, "adm_in_channels": 2048, "num_patches": 256, "qkv_bias": True,
    "context_embedder_config": {"target": "torch.nn.Linear", "params": {"in_features": 96, "out_features": 128}},
}  # fmt: skip
_FLUX = {
    "image_model": "flux", "in_channels": 16, "out_channels": 16, "patch_size": 2, "vec_in_dim": 768,
    "context_in_dim": 96, "hidden_size": 96, "mlp_ratio": 4.0, "num_heads": 3, "depth": 1, "depth_single_blocks": 1,
    "axes_dim": [8, 12, 12], "theta": 10000, "qkv_bias": True, "guidance_embed": True,
}  # fmt: skip
if "txt_ids_dims" in {field.name for field in dataclasses.fields(FluxParams)}:  # Hosts that know Flux.2 ask for it.
    _FLUX["txt_ids_dims"] = []
_LUMINA = {
    "image_model": "lumina2", "patch_size": 2, "in_channels": 16, "dim": 96, "cap_feat_dim": 96, "n_layers": 1,
    "n_heads": 3, "n_kv_heads": 1, "axes_dims": [8, 12, 12], "axes_lens": [64, 64, 64], "qk_norm": True,
}  # fmt: skip

MODELS: dict[str, tuple[Any, dict[str, Any], int]] = {
    "sd15": (architectures.SD15, _SD15, 768),
    "sd20-v": (architectures.SD20, {**_UNET, "adm_in_channels": None}, 1024),
    "sdxl": (architectures.SDXL, _SDXL, 1280),
    "sd3": (architectures.SD3, _SD3, 2048),
    "flux": (architectures.Flux, _FLUX, 768),
    "lumina2": (architectures.Lumina2, _LUMINA, 96),
}
"""Name -> (ComfyUI's architecture, its settings, width of the pooled text features)."""


@with_weights()
def build(name: str, dtype: torch.dtype = torch.float32) -> Any:
    """A MODEL whose weights are small random numbers of `dtype`; it computes in float32."""
    architecture, settings, _ = MODELS[name]
    configured = architecture(dict(settings))
    configured.set_inference_dtype(dtype, torch.float32 if dtype != torch.float32 else None)
    # By the spread of this bias ComfyUI tells v-prediction models of SD2's shape.
    state = {"output_blocks.11.1.transformer_blocks.0.norm1.bias": torch.linspace(-1, 1, 8)}
    model = configured.get_model(state if name == "sd20-v" else {}, "", device=CPU)
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for weight in model.parameters():
            weight.copy_(torch.randn(weight.shape, generator=generator) * 0.05)
        if name == "sd3":  # The host leaves this buffer to be filled by a checkpoint: until then it holds any bytes.
            places = model.diffusion_model.pos_embed
            places.copy_(torch.randn(places.shape, generator=generator) * 0.05)
    model.requires_grad_(False)
    return patcher_of(model)


class _Words(nn.Module):
    """Stands in for a text encoder without a table of tokens, as T5 is to this pack: prompt -> random features."""

    dtypes = frozenset({torch.float32})

    def __init__(self, pooled: int):
        super().__init__()
        self.anchor, self.pooled = nn.Parameter(torch.zeros(1)), pooled

    def reset_clip_options(self) -> None: ...

    def encode_token_weights(self, prompt: str) -> tuple[torch.Tensor, torch.Tensor]:
        generator = torch.Generator().manual_seed(sum(map(ord, prompt)) + len(prompt))
        cross = torch.randn(1, 7, 96, generator=generator) + self.anchor
        return cross, torch.randn(1, self.pooled, generator=generator)


class WordClip:
    """What a CLIP socket carries, for `_Words`."""

    layer_idx = None
    tokenizer = type("Tokenizer", (), {})()

    def __init__(self, name: str):
        self.cond_stage_model = _Words(MODELS[name][2])
        self.patcher = patcher_of(self.cond_stage_model)
        self.tokenize: Callable[[str], str] = str

    def clone(self) -> WordClip:
        return self
