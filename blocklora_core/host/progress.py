"""Training progress as ComfyUI shows it: bar, preview picture, event, and the interrupt button."""

from __future__ import annotations

from collections.abc import Callable

import comfy.utils
import torch
from PIL import Image

from ..curves import loss_curve
from ..training import Progress

PREVIEW = 512


class NodeProgress:
    """The trainer's callback. Raises ComfyUI's InterruptProcessingException when the user presses cancel.

    decode: latents (1, C, H, W) -> picture (1, H, W, 3) in [0, 1].
    """

    def __init__(self, node_id: str | None, steps: int, title: str, decode: Callable[[torch.Tensor], torch.Tensor]):
        self.bar = comfy.utils.ProgressBar(steps, node_id=node_id)
        self.title, self.decode = title, decode
        self.samples: list[Image.Image] = []

    def __call__(self, progress: Progress) -> None:
        if progress.sample is not None:
            self.samples.append(to_picture(self.decode(progress.sample)))
        preview = None
        if progress.sample is not None or progress.step % 10 == 0 or progress.step == progress.steps:
            preview = ("JPEG", self.picture(progress), PREVIEW)
        self.bar.update_absolute(progress.step, progress.steps, preview)

    def picture(self, progress: Progress) -> Image.Image:
        """The loss curve with the latest sample beside it."""
        title = f"{self.title}  step {progress.step}/{progress.steps}  loss {progress.loss:.4f}"
        return loss_curve(progress.losses, progress.steps, title, self.samples[-1] if self.samples else None)


def to_picture(image: torch.Tensor) -> Image.Image:
    """(1, H, W, 3) in [0, 1] -> PIL."""
    return Image.fromarray((image[0].clamp(0, 1) * 255).round().byte().cpu().numpy())


def to_image(picture: Image.Image) -> torch.Tensor:
    """PIL -> ComfyUI's IMAGE, (1, H, W, 3) in [0, 1]."""
    pixels = torch.frombuffer(bytearray(picture.convert("RGB").tobytes()), dtype=torch.uint8)
    return pixels.view(1, picture.height, picture.width, 3).float() / 255
