"""Tiny CLIPs with random weights, of ComfyUI's own classes: one that sees, and text encoders that fit it or do not."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import comfy.clip_vision
import comfy.model_management
import comfy.sd
import torch
from comfy.sd1_clip import SD1ClipModel, SD1Tokenizer
from comfy.sdxl_clip import SDXLClipModel, SDXLTokenizer

from tests.host.dynamic import with_weights

WIDTH = 64


def _fill(module: torch.nn.Module) -> None:
    generator = torch.Generator().manual_seed(3)
    for _, weight in sorted(module.named_parameters()):
        weight.data.copy_(torch.randn(weight.shape, generator=generator) * 0.2)


@with_weights()
def make_vision(folder: Path, width: int = WIDTH) -> comfy.clip_vision.ClipVisionModel:
    """width: of its image embeddings."""
    config = {
        "hidden_act": "quick_gelu", "hidden_size": 32, "image_size": 32, "intermediate_size": 32, "num_channels": 3,
        "model_type": "clip_vision_model", "num_attention_heads": 2, "num_hidden_layers": 2, "patch_size": 8,
        "projection_dim": width,
    }  # fmt: skip
    path = folder / f"vision{width}.json"
    path.write_text(json.dumps(config), encoding="utf-8")
    vision = comfy.clip_vision.ClipVisionModel(path)
    _fill(vision.model)
    return vision


def _config(width: int) -> dict[str, Any]:
    return {"hidden_size": width, "intermediate_size": width, "num_attention_heads": 2, "num_hidden_layers": 3}


@with_weights()
def make_text(width: int = WIDTH) -> Any:
    """SD1.5's text encoder, made small."""
    target = SimpleNamespace(clip=SD1ClipModel, tokenizer=SD1Tokenizer, params={})
    return _filled(comfy.sd.CLIP(target, model_options={"clip_l_model_config": _config(width)}))


@with_weights()
def make_dual_text(left: int, right: int) -> Any:
    """SDXL's pair, clip_l and clip_g, made small."""
    target = SimpleNamespace(clip=SDXLClipModel, tokenizer=SDXLTokenizer, params={})
    configs = {"clip_l_model_config": _config(left), "clip_g_model_config": _config(right)}
    return _filled(comfy.sd.CLIP(target, model_options=configs))


def _filled(clip: Any) -> Any:
    comfy.model_management.unload_all_models()  # Else it goes on with what it was loaded with, and gets that back.
    _fill(clip.cond_stage_model)
    return clip
