"""Training progress as ComfyUI shows it: bar, preview picture, a line of text, and the interrupt button."""

from __future__ import annotations

import time
from collections.abc import Callable

import comfy.utils
import torch
from PIL import Image

from ...reports.curves import PREVIEW_WIDTH, loss_curve
from ...training import Progress
from ..page import tell


class NodeProgress:
    """The trainer's callback. Raises ComfyUI's InterruptProcessingException when the user presses cancel.

    decode: latents (1, C, H, W) -> picture (1, H, W, 3) in [0, 1].
    """

    def __init__(self, node_id: str | None, steps: int, title: str, decode: Callable[[torch.Tensor], torch.Tensor]):
        self.bar = comfy.utils.ProgressBar(steps, node_id=node_id)
        self.node_id, self.title, self.decode = node_id, title, decode
        self.samples: list[Image.Image] = []
        self._first: tuple[int, float] | None = None

    def __call__(self, progress: Progress) -> None:
        if progress.sample is not None:
            self.samples.append(to_picture(self.decode(progress.sample)))
        preview = None
        if progress.sample is not None or progress.step % 10 == 0 or progress.step == progress.steps:
            preview = ("JPEG", self.picture(progress), PREVIEW_WIDTH)
        tell(self.node_id, self.line(progress))
        self.bar.update_absolute(progress.step, progress.steps, preview)

    def line(self, progress: Progress) -> str:
        """Where the training is and how long it goes on."""
        now = time.perf_counter()
        first, started = self._first = self._first or (progress.step, now)
        text = f"step {progress.step} of {progress.steps}, loss {progress.loss:.4f}"
        if progress.step == first:
            return text
        pace = (now - started) / (progress.step - first)
        return f"{text}, {pace:.2f} s a step, {_span(pace * (progress.steps - progress.step))} left"

    def picture(self, progress: Progress) -> Image.Image:
        """The loss curve with the latest sample beside it and those before it below."""
        title = f"{self.title}  step {progress.step}/{progress.steps}  loss {progress.loss:.4f}"
        return loss_curve(progress.losses, progress.steps, title, self.samples)


def _span(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"


def to_picture(image: torch.Tensor) -> Image.Image:
    """(1, H, W, 3) in [0, 1] -> PIL."""
    return Image.fromarray((image[0].clamp(0, 1) * 255).round().byte().cpu().numpy())


def to_pixels(picture: Image.Image) -> torch.Tensor:
    """PIL -> (H, W, 3), uint8."""
    pixels = torch.frombuffer(bytearray(picture.convert("RGB").tobytes()), dtype=torch.uint8)
    return pixels.view(picture.height, picture.width, 3)


def to_image(picture: Image.Image) -> torch.Tensor:
    """PIL -> ComfyUI's IMAGE, (1, H, W, 3) in [0, 1]."""
    return to_pixels(picture)[None].float() / 255
