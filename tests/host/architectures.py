"""Tiny models of the architectures that ComfyUI knows, of its own classes, with small random weights."""

# ruff: noqa: E501
from __future__ import annotations

import dataclasses
import importlib
from typing import Any

import comfy.ldm.chroma.model as chroma
import comfy.ldm.flux.model as flux
import comfy.ldm.hunyuan_video.model as hunyuan_video
import comfy.supported_models as supported
import torch
from torch import nn

from tests.host.dynamic import patcher_of, with_weights

CPU = torch.device("cpu")
W = 96
"""Width of every tiny text encoder."""

# fmt: off
_UNET = {"image_size": 32, "in_channels": 4, "out_channels": 4, "model_channels": 64, "num_res_blocks": [1, 1],
    "channel_mult": [1, 2], "transformer_depth": [0, 1], "transformer_depth_middle": 1, "transformer_depth_output": [0, 0, 1, 1],
    "context_dim": W, "num_head_channels": 32, "use_spatial_transformer": True, "use_linear_in_transformer": True,
    "use_temporal_attention": False, "legacy": False}
_FLUX = {"image_model": "flux", "in_channels": 16, "out_channels": 16, "patch_size": 2, "vec_in_dim": W, "context_in_dim": W,
    "hidden_size": 96, "mlp_ratio": 4.0, "num_heads": 3, "depth": 1, "depth_single_blocks": 2, "axes_dim": [8, 12, 12],
    "theta": 10000, "qkv_bias": True, "guidance_embed": True}
_FLUX2 = {"image_model": "flux2", "in_channels": 128, "out_channels": 128, "patch_size": 1, "vec_in_dim": None, "context_in_dim": 3 * W,
    "hidden_size": 96, "mlp_ratio": 3.0, "num_heads": 3, "depth": 1, "depth_single_blocks": 2, "axes_dim": [8, 8, 8, 8], "theta": 2000,
    "qkv_bias": False, "guidance_embed": True, "global_modulation": True, "mlp_silu_act": True, "ops_bias": False,
    "default_ref_method": "index", "ref_index_scale": 10.0}
_CHROMA = {"image_model": "chroma", "in_channels": 64, "out_channels": 64, "patch_size": 2, "context_in_dim": W, "hidden_size": 96,
    "mlp_ratio": 4.0, "num_heads": 3, "depth": 1, "depth_single_blocks": 2, "axes_dim": [8, 12, 12], "theta": 10000, "qkv_bias": True,
    "in_dim": 64, "out_dim": 96, "hidden_dim": 64, "n_layers": 2}
_LUMINA = {"image_model": "lumina2", "patch_size": 2, "in_channels": 16, "dim": 96, "cap_feat_dim": W, "n_layers": 2, "n_heads": 3,
    "n_kv_heads": 1, "axes_dims": [8, 12, 12], "axes_lens": [1536, 512, 512], "qk_norm": True}
_ZIMAGE = {**_LUMINA, "dim": 288, "axes_dims": [32, 32, 32], "n_kv_heads": 3, "rope_theta": 256.0, "ffn_dim_multiplier": 8 / 3, "z_image_modulation": True, "time_scale": 1000.0,
    "pad_tokens_multiple": 32}
_QWEN = {"image_model": "qwen_image", "in_channels": 64, "num_layers": 2, "attention_head_dim": 32, "num_attention_heads": 3,
    "joint_attention_dim": W, "axes_dims_rope": (8, 12, 12)}
_WAN = {"image_model": "wan2.1", "model_type": "t2v", "dim": 96, "out_dim": 16, "num_heads": 3, "ffn_dim": 192, "num_layers": 2,
    "patch_size": (1, 2, 2), "freq_dim": 64, "window_size": (-1, -1), "qk_norm": True, "cross_attn_norm": True, "eps": 1e-6,
    "in_dim": 16, "text_dim": W, "text_len": 512}
_HYV = {"image_model": "hunyuan_video", "in_channels": 16, "out_channels": 16, "patch_size": [1, 2, 2], "vec_in_dim": W,
    "axes_dim": [8, 12, 12], "meanflow": False, "context_in_dim": W, "hidden_size": 96, "mlp_ratio": 4.0, "num_heads": 3, "depth": 1,
    "depth_single_blocks": 2, "theta": 256, "qkv_bias": True, "byt5": False, "guidance_embed": True, "use_cond_type_embedding": False,
    "vision_in_dim": None}
_HYI = {**_HYV, "in_channels": 64, "out_channels": 64, "patch_size": [1, 1], "vec_in_dim": None, "axes_dim": [16, 16], "guidance_embed": False}
_COSMOS2 = {"image_model": "cosmos_predict2", "max_img_h": 240, "max_img_w": 240, "max_frames": 128, "in_channels": 16, "out_channels": 16,
    "patch_spatial": 2, "patch_temporal": 1, "model_channels": 96, "concat_padding_mask": True, "crossattn_emb_channels": W,
    "pos_emb_cls": "rope3d", "pos_emb_learnable": True, "pos_emb_interpolation": "crop", "min_fps": 1, "max_fps": 30,
    "use_adaln_lora": True, "adaln_lora_dim": 32, "num_blocks": 2, "num_heads": 3, "extra_per_block_abs_pos_emb": False,
    "rope_h_extrapolation_ratio": 4.0, "rope_w_extrapolation_ratio": 4.0, "rope_t_extrapolation_ratio": 1.0,
    "extra_h_extrapolation_ratio": 1.0, "extra_w_extrapolation_ratio": 1.0, "extra_t_extrapolation_ratio": 1.0,
    "rope_enable_fps_modulation": False}
_SD3 = {"in_channels": 16, "patch_size": 2, "depth": 2, "input_size": None, "pos_embed_max_size": 16, "pos_embed_scaling_factor": None,
    "adm_in_channels": 2 * W, "num_patches": 256, "qkv_bias": True,
    "context_embedder_config": {"target": "torch.nn.Linear", "params": {"in_features": 4096, "out_features": 128}}}
_HIDREAM = {"image_model": "hidream", "attention_head_dim": 32, "axes_dims_rope": [8, 12, 12], "caption_channels": [W, W],
    "max_resolution": [128, 128], "in_channels": 16, "llama_layers": [0, 1, 1], "num_attention_heads": 3, "num_routed_experts": 4,
    "num_activated_experts": 2, "num_layers": 1, "num_single_layers": 2, "out_channels": 16, "patch_size": 2, "text_emb_dim": 2 * W}
_OMNIGEN = {"image_model": "omnigen2", "axes_dim_rope": [8, 12, 12], "axes_lens": [1024, 1664, 1664], "ffn_dim_multiplier": None,
    "hidden_size": 96, "in_channels": 16, "multiple_of": 32, "norm_eps": 1e-5, "num_attention_heads": 3, "num_kv_heads": 1, "num_layers": 2,
    "num_refiner_layers": 1, "out_channels": None, "patch_size": 2, "text_feat_dim": W, "timestep_scale": 1000.0}
_PIXART = {"image_model": "pixart_sigma", "num_heads": 3, "patch_size": 2, "hidden_size": 96, "in_channels": 4, "depth": 2,
    "model_max_length": 300, "input_size": 128, "pe_interpolation": 2, "micro_condition": False, "caption_channels": W}
_LTXV = {"image_model": "ltxv", "in_channels": 128, "cross_attention_dim": 96, "attention_head_dim": 32, "num_attention_heads": 3,
    "caption_channels": W, "num_layers": 2}
_AURA = {"max_seq": 1024, "cond_seq_dim": W, "n_double_layers": 1, "n_layers": 2, "dim": 96, "n_heads": 3, "global_conddim": 96}
_MOCHI = {"image_model": "mochi_preview", "depth": 2, "patch_size": 2, "num_heads": 3, "hidden_size_x": 96, "hidden_size_y": 48,
    "mlp_ratio_x": 4.0, "mlp_ratio_y": 4.0, "learn_sigma": False, "in_channels": 12, "qk_norm": True, "qkv_bias": False, "out_bias": True,
    "patch_embed_bias": True, "posenc_preserve_area": True, "timestep_mlp_bias": True, "attend_to_padding": False, "t5_feat_dim": W,
    "use_t5": True, "rope_theta": 10000.0, "timestep_scale": 1000.0}
_KREA2 = {"image_model": "krea2", "features": 96, "channels": 16, "patch": 2, "layers": 2, "heads": 3, "kvheads": 1, "txtlayers": 12, "txtdim": W,
    "txtheads": 3, "txtkvheads": 3, "tdim": 64}
_ANIMA = {**_COSMOS2, "image_model": "anima", "crossattn_emb_channels": 1024}
_KAND = {"image_model": "kandinsky5", "model_dim": 96, "axes_dims": (8, 12, 12), "rope_scale_factor": (1.0, 1.0, 1.0), "time_dim": 32,
    "ff_dim": 192, "visual_embed_dim": 64, "num_text_blocks": 1, "num_visual_blocks": 2, "in_text_dim": W, "in_text_dim2": W}

def _host(settings: dict[str, Any], params: Any, **newer: Any) -> dict[str, Any]:
    """`settings`, with what this host's parameters have besides."""
    names = {one.name for one in dataclasses.fields(params)}
    return {**settings, **{name: value for name, value in newer.items() if name in names and name not in settings}}


_FLUX = _host(_FLUX, flux.FluxParams, txt_ids_dims=[])
_FLUX2 = _host(_FLUX2, flux.FluxParams, txt_ids_dims=[3])
_CHROMA = _host(_CHROMA, chroma.ChromaParams, txt_ids_dims=[], vec_in_dim=None)
_HYV = _host(_HYV, hunyuan_video.HunyuanVideoParams, meanflow_sum=False)
_HYI = _host(_HYI, hunyuan_video.HunyuanVideoParams, meanflow_sum=False)
_LONGCAT = {**_FLUX, "vec_in_dim": None, "guidance_embed": False, "txt_ids_dims": [1, 2]}
ARCHITECTURES: dict[str, tuple[str, dict[str, Any], tuple[int, ...], str]] = {
    "sd15": ("SD15", {**_UNET, "adm_in_channels": None, "use_linear_in_transformer": False}, (4, 8, 8), "clip_l"),
    "sd20v": ("SD20", {**_UNET, "adm_in_channels": None}, (4, 8, 8), "clip_l"),
    "sdxl": ("SDXL", {**_UNET, "context_dim": 2 * W, "adm_in_channels": 1536 + W, "num_classes": "sequential"}, (4, 8, 8), "sdxl"),
    "sd35": ("SD3", {**_SD3, "qk_norm": "rms", "x_block_self_attn_layers": [0]}, (16, 8, 8), "sd3"),
    "flux": ("Flux", _FLUX, (16, 8, 8), "flux"),
    "flux_schnell": ("FluxSchnell", {**_FLUX, "guidance_embed": False}, (16, 8, 8), "flux"),
    "flux2": ("Flux2", _FLUX2, (128, 4, 4), "flux2"),
    "chroma": ("Chroma", _CHROMA, (16, 8, 8), "t5"),
    "lumina2": ("Lumina2", _LUMINA, (16, 8, 8), "gemma2"),
    "zimage": ("ZImage", _ZIMAGE, (16, 8, 8), "qwen3_4b"),
    "qwen_image": ("QwenImage", _QWEN, (16, 1, 8, 8), "qwen25_7b"),
    "wan21": ("WAN21_T2V", _WAN, (16, 1, 8, 8), "umt5"),
    "wan22_5b": ("WAN22_T2V", {**_WAN, "in_dim": 48, "out_dim": 48}, (48, 1, 8, 8), "umt5"),
    "wan21_i2v": ("WAN21_I2V", {**_WAN, "model_type": "i2v", "in_dim": 36}, (16, 1, 8, 8), "umt5"),
    "hunyuan_video": ("HunyuanVideo", _HYV, (16, 1, 8, 8), "hyvideo"),
    "hunyuan_image": ("HunyuanImage21", _HYI, (64, 8, 8), "hyimage"),
    "hidream": ("HiDream", _HIDREAM, (16, 8, 8), "hidream"),
    "cosmos_predict2": ("CosmosT2IPredict2", _COSMOS2, (16, 1, 8, 8), "cosmos_t5"),
    "omnigen2": ("Omnigen2", _OMNIGEN, (16, 8, 8), "qwen25_3b"),
    "pixart_sigma": ("PixArtSigma", _PIXART, (4, 64, 64), "t5"),
    "ltxv": ("LTXV", _LTXV, (128, 1, 4, 4), "ltxv"),
    "auraflow": ("AuraFlow", _AURA, (4, 8, 8), "aura_t5"),
    "klein": ("Flux2", {**_FLUX2, "guidance_embed": False}, (128, 4, 4), "klein"),
    "anima": ("Anima", _ANIMA, (16, 1, 8, 8), "anima"),
    "krea2": ("Krea2", _KREA2, (16, 1, 8, 8), "krea2"),
    "kandinsky5": ("Kandinsky5Image", _KAND, (16, 8, 8), "kandinsky5"),
    "longcat": ("LongCatImage", _LONGCAT, (16, 8, 8), "longcat"),
}
# fmt: on

_NEWER = () if hasattr(importlib.import_module("comfy.text_encoders.flux"), "klein_te") else ("klein",)
KNOWN = [name for name, (kind, *_) in ARCHITECTURES.items() if hasattr(supported, kind) and name not in _NEWER]
"""Those that this host has."""


def fill(module: nn.Module, scale: float = 0.05) -> nn.Module:
    """Small random numbers for every weight, norms around 1."""
    random = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for name, weight in module.named_parameters():
            value = torch.randn(weight.shape, generator=random) * scale
            norm = "norm" in name.lower() or name.endswith("scale")
            weight.copy_(value + (1 if weight.ndim <= 1 and norm and not name.endswith("bias") else 0))
    return module


@with_weights()
def build(name: str, dtype: torch.dtype = torch.float32) -> Any:
    """A MODEL that computes in float32."""
    kind, settings, *_ = ARCHITECTURES[name]
    config = getattr(supported, kind)(dict(settings))
    config.set_inference_dtype(dtype, torch.float32 if dtype != torch.float32 else None)
    # By the spread of this bias ComfyUI tells v-prediction models of SD2's shape.
    state = {"output_blocks.11.1.transformer_blocks.0.norm1.bias": torch.linspace(-1, 1, 8)}
    model = config.get_model(state if name == "sd20v" else {}, "", device=CPU)
    fill(model)
    with torch.no_grad():
        for place in (buffer for at, buffer in model.diffusion_model.named_buffers() if at == "pos_embed"):
            place.copy_(torch.randn(place.shape, generator=torch.Generator().manual_seed(3)) * 0.05)
    model.requires_grad_(False).eval()
    return patcher_of(model)


def latents_of(name: str) -> tuple[int, ...]:
    """Shape of one picture's latents: (C, H, W), or (C, frames, H, W)."""
    return ARCHITECTURES[name][2]


class Vae:
    """Pixels (B, H, W, 3) <-> latents as the host's VAEs give them: video latents take frames from the batch."""

    def __init__(self, name: str, factor: int = 8):
        self.shape, self.factor = latents_of(name), factor

    def encode(self, pixels: torch.Tensor) -> torch.Tensor:
        small = nn.functional.avg_pool2d(pixels.movedim(-1, 1), self.factor)
        latents = small.repeat(1, -(-self.shape[0] // 3), 1, 1)[:, : self.shape[0]] * 2 - 1
        return latents.movedim(0, 1)[None] if len(self.shape) == 4 else latents

    def decode(self, latents: torch.Tensor) -> torch.Tensor:
        pixels = latents[:, :3].movedim(1, -1)
        for dim in (-3, -2):
            pixels = pixels.repeat_interleave(self.factor, dim)
        return pixels.clamp(0, 1)
