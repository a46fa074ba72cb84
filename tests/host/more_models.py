"""Tiny models of architectures that `any_model` lacks, with random weights: what a LoRA file can be made for."""

from __future__ import annotations

import dataclasses
from typing import Any

import comfy.supported_models as architectures
import torch
from comfy.ldm.chroma.model import ChromaParams
from comfy.ldm.hunyuan_video.model import HunyuanVideoParams

from tests.host.any_model import CPU, MODELS, build
from tests.host.dynamic import patcher_of, with_weights

_WAN = {
    "image_model": "wan2.1", "model_type": "t2v", "dim": 96, "ffn_dim": 192, "num_heads": 3, "num_layers": 1,
    "in_dim": 16, "out_dim": 16, "text_dim": 64, "text_len": 16, "freq_dim": 32,
}  # fmt: skip
_HUNYUAN_VIDEO = {
    "image_model": "hunyuan_video", "in_channels": 16, "out_channels": 16, "vec_in_dim": 64, "context_in_dim": 64,
    "hidden_size": 96, "mlp_ratio": 4.0, "num_heads": 3, "depth": 1, "depth_single_blocks": 1,
    "axes_dim": [8, 12, 12], "theta": 256, "patch_size": [1, 2, 2], "qkv_bias": True, "guidance_embed": True,
    "byt5": False, "meanflow": False, "use_cond_type_embedding": False, "vision_in_dim": None,
}  # fmt: skip
_Z_IMAGE = {
    "image_model": "lumina2", "patch_size": 2, "in_channels": 16, "dim": 96, "cap_feat_dim": 64, "n_layers": 1,
    "n_refiner_layers": 1, "n_heads": 3, "n_kv_heads": 3, "axes_dims": [8, 12, 12], "axes_lens": [64, 64, 64],
    "qk_norm": True, "z_image_modulation": True, "time_scale": 1000.0, "pad_tokens_multiple": 32,
}  # fmt: skip
_QWEN_IMAGE = {
    "image_model": "qwen_image", "in_channels": 64, "num_layers": 1, "attention_head_dim": 32,
    "num_attention_heads": 3, "joint_attention_dim": 64, "axes_dims_rope": (8, 12, 12),
}  # fmt: skip
_HIDREAM = {
    "image_model": "hidream", "patch_size": 2, "in_channels": 16, "num_layers": 1, "num_single_layers": 1,
    "attention_head_dim": 32, "num_attention_heads": 3, "caption_channels": [64, 64], "text_emb_dim": 64,
    "axes_dims_rope": (16, 8, 8), "llama_layers": [0], "max_resolution": (16, 16),
}  # fmt: skip
_CHROMA = {
    "image_model": "chroma", "in_channels": 64, "out_channels": 64, "context_in_dim": 64, "hidden_size": 96,
    "mlp_ratio": 4.0, "num_heads": 3, "depth": 1, "depth_single_blocks": 1, "axes_dim": [8, 12, 12], "theta": 10000,
    "patch_size": 2, "qkv_bias": True, "in_dim": 64, "out_dim": 96, "hidden_dim": 64, "n_layers": 1,
}  # fmt: skip
_PIXART = {
    "image_model": "pixart_alpha", "input_size": 16, "patch_size": 2, "in_channels": 4, "hidden_size": 96, "depth": 1,
    "num_heads": 3, "caption_channels": 64, "micro_condition": False,
}  # fmt: skip

for _settings, _params, _new in (
    (_CHROMA, ChromaParams, {"txt_ids_dims": [], "vec_in_dim": None}),
    (_HUNYUAN_VIDEO, HunyuanVideoParams, {"meanflow_sum": False}),
):
    # What newer hosts ask for.
    _fields = {field.name for field in dataclasses.fields(_params)}
    _settings.update({name: value for name, value in _new.items() if name in _fields})

MORE: dict[str, tuple[Any, dict[str, Any]]] = {
    "wan": (architectures.WAN21_T2V, _WAN),
    "hunyuan-video": (architectures.HunyuanVideo, _HUNYUAN_VIDEO),
    "z-image": (getattr(architectures, "ZImage", architectures.Lumina2), _Z_IMAGE),
    "qwen-image": (architectures.QwenImage, _QWEN_IMAGE),
    "hidream": (architectures.HiDream, _HIDREAM),
    "chroma": (architectures.Chroma, _CHROMA),
    "pixart": (architectures.PixArtAlpha, _PIXART),
}

NAMES = (*MODELS, *MORE)


@with_weights()
def any_of(name: str) -> Any:
    """A MODEL of any of `NAMES`, in float32."""
    if name in MODELS:
        return build(name)
    architecture, settings = MORE[name]
    configured = architecture(dict(settings))
    configured.set_inference_dtype(torch.float32, None)
    model = configured.get_model({}, "", device=CPU)
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for weight in model.parameters():
            weight.copy_(torch.randn(weight.shape, generator=generator) * 0.05)
    model.requires_grad_(False)
    return patcher_of(model)
