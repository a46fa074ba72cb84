"""CLIP as ComfyUI loads it: CLIP_VISION for pictures and, where it fits, CLIP for texts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from comfy.sd1_clip import SDClipModel
from torch import Tensor
from torch.nn import functional as F

from ...evaluation.embedder import NoTextError
from ...evaluation.scores import PREFIX
from ..comfy import ComfyClip, ComfyClipVision
from ..interrupt import check_cancel

BATCH = 16
"""Pictures that CLIP_VISION sees at a time."""

PAIRS = (
    "CLIP-ViT-L/14 vision with the clip_l of a file that has a text_projection, such as clip_l.safetensors (768), "
    "OpenCLIP ViT-H vision with SD2's text encoder (1024), OpenCLIP ViT-bigG vision with SDXL's clip_g (1280)"
)

_COLOURS = {
    "black": (0, 0, 0),
    "white": (1, 1, 1),
    "red": (1, 0, 0),
    "green": (0, 1, 0),
    "blue": (0, 0, 1),
    "yellow": (1, 1, 0),
}


class ClipEmbedder:
    """The Embedder of a CLIP_VISION and, if given, of a CLIP whose projected text vectors are as wide.

    Pictures are resized and cropped to their middle, as CLIP's own. notes: doubts about the text side. ValueError when
    CLIP_VISION gives no image embeddings, or CLIP has no text encoder of that width.
    """

    def __init__(self, vision: ComfyClipVision, clip: ComfyClip | None = None):
        self.vision = vision
        self.width = self.images(torch.zeros(1, 64, 64, 3)).shape[1]
        self.clip, self.encoder = clip, _encoder(clip, self.width) if clip is not None else ""
        self.no_text = _no_text(clip, self.encoder)
        self.notes = () if self.no_text else self._doubts()

    @torch.no_grad()
    def images(self, pictures: Tensor) -> Tensor:
        """(B, H, W, 3) in [0, 1] -> (B, D) float32 on the CPU, unit length."""
        return F.normalize(torch.cat([self._see(batch) for batch in pictures[..., :3].split(BATCH)]), dim=-1)

    @torch.no_grad()
    def texts(self, prompts: Sequence[str]) -> Tensor:
        """N prompts -> (N, D) float32 on the CPU, unit length. NoTextError, with the reason, without a text side."""
        if self.no_text:
            raise NoTextError(self.no_text)
        return F.normalize(torch.cat([self._read(prompt) for prompt in prompts]), dim=-1)

    def _see(self, batch: Tensor) -> Tensor:
        check_cancel()
        # The host's default is to crop to the middle.
        found = self.vision.encode_image(batch)["image_embeds"]
        if not isinstance(found, Tensor) or found.ndim != 2:
            got = f"a tensor of shape {tuple(found.shape)}" if isinstance(found, Tensor) else type(found).__name__
            raise ValueError(
                f"CLIP_VISION: expected one image embedding for each picture, got {got}. Connect a CLIP vision model."
            )
        return found.float().cpu()

    def _read(self, prompt: str) -> Tensor:
        assert self.clip is not None
        model = getattr(self.clip.cond_stage_model, self.encoder)
        tokens = self.clip.tokenize(prompt)[_key(self.encoder)]
        self.clip.load_model()
        model.reset_clip_options()
        # Checkpoints of SD1.5 ask for the vector before its projection. Newer hosts want to be told the device.
        model.set_clip_options({"projected_pooled": True, "execution_device": self.clip.patcher.load_device})
        try:
            pooled: Tensor = model.encode_token_weights(tokens)[1]
        finally:
            model.reset_clip_options()
        return pooled.float().cpu()

    def _doubts(self) -> tuple[str, ...]:
        """A text side that does not fit, or a projection that was never loaded, does not know colours either."""
        plain = torch.tensor(list(_COLOURS.values())).float()[:, None, None].expand(-1, 64, 64, 3)
        texts = self.texts([f"{PREFIX}the colour {name}" for name in _COLOURS])
        right = (self.images(plain) @ texts.T).argmax(1) == torch.arange(len(_COLOURS))
        if 2 * int(right.sum()) >= len(_COLOURS):
            return ()
        return (
            f"Text alignment is doubtful: of {len(_COLOURS)} plain colours {int(right.sum())} were matched with their "
            f"names. The text CLIP may be another model's, or its file may lack the text_projection. Pairs that fit: "
            f"{PAIRS}.",
        )


def _key(encoder: str) -> str:
    """What the host's tokenizer calls the tokens of that text encoder."""
    return encoder.removeprefix("clip_")


def _projections(clip: ComfyClip) -> dict[str, Tensor]:
    """CLIP text encoder ("clip_l") -> its projection into the space of pictures (D, width)."""
    children: list[tuple[str, Any]] = list(clip.cond_stage_model.named_children())
    return {
        name: child.transformer.text_projection.weight
        for name, child in children
        if isinstance(child, SDClipModel) and hasattr(child.transformer, "text_projection")
    }


def _encoder(clip: ComfyClip, width: int) -> str:
    found = {name: weight.shape[0] for name, weight in _projections(clip).items()}
    for name, wide in found.items():
        if wide == width:
            return name
    listed = ", ".join(f"{name} of {wide}" for name, wide in found.items()) or "no CLIP text encoder"
    raise ValueError(
        f"Text CLIP: expected a text encoder whose vectors are as wide as CLIP_VISION's, {width}, got {listed}. "
        f"Pairs that fit: {PAIRS}. Or disconnect the text CLIP: text alignment is then left out."
    )


def _no_text(clip: ComfyClip | None, encoder: str) -> str:
    """Why texts cannot be embedded; empty when they can."""
    if clip is None:
        return "no text CLIP is connected."
    weight = _projections(clip)[encoder].detach().float().cpu()
    identity = torch.eye(*weight.shape)
    if weight.isfinite().all() and weight.any() and not torch.allclose(weight, identity, atol=1e-3):
        return ""
    return (
        f"the {encoder} of the text CLIP has no text_projection, as in SD1.5 checkpoints, so that its vectors are not "
        f"in the space of pictures. Pairs that fit: {PAIRS}."
    )
