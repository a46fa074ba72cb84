"""Names for ComfyUI's own objects, which are untyped to a type checker."""

from __future__ import annotations

from typing import Any, TypeAlias

ComfyModel: TypeAlias = Any
"""What a MODEL socket carries: comfy.model_patcher.ModelPatcher."""

ComfyClip: TypeAlias = Any
"""What a CLIP socket carries: comfy.sd.CLIP."""

ComfyVae: TypeAlias = Any
"""What a VAE socket carries: comfy.sd.VAE."""

ComfyConditioning: TypeAlias = list[Any]
"""What a CONDITIONING socket carries, as CLIP Text Encode gives it: [[tensor, dict], ...]."""

ComfyClipVision: TypeAlias = Any
"""What a CLIP_VISION socket carries: comfy.clip_vision.ClipVisionModel, or anything with its encode_image."""
