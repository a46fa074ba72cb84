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
from .live.board import Run


class NodeProgress:
    """The trainer's callback. Raises ComfyUI's InterruptProcessingException when the user presses cancel.

    decode: latents (1, C, H, W) -> picture (1, H, W, 3) in [0, 1].
    """

    def __init__(self, node_id: str | None, live: Run, decode: Callable[[torch.Tensor], torch.Tensor]):
        self.bar = comfy.utils.ProgressBar(live.steps, node_id=node_id)
        self.node_id, self.live, self.decode = node_id, live, decode
        self.samples: list[Image.Image] = []
        self._first: tuple[int, float] | None = None

    def __call__(self, progress: Progress) -> None:
        self.live.stepped(progress.losses, self._seconds(progress.step))
        if progress.sample is not None:
            self.samples.append(to_picture(self.decode(progress.sample)))
            self.live.show(self.samples[-1])
        preview = None
        # A page with our panel draws all of it, and better.
        if not self.live.watched:
            if progress.sample is not None or progress.step % 10 == 0 or progress.step == progress.steps:
                preview = ("JPEG", self.picture(progress), PREVIEW_WIDTH)
            tell(self.node_id, self.line(progress))
        self.bar.update_absolute(progress.step, progress.steps, preview)

    def _seconds(self, step: int) -> float:
        now = time.perf_counter()
        self._first = self._first or (step, now)
        return now - self._first[1]

    def line(self, progress: Progress) -> str:
        """Where the training is and how long it goes on."""
        text = f"step {progress.step} of {progress.steps}, loss {progress.loss:.4f}"
        made = progress.step - (self._first or (progress.step, 0.0))[0]
        if not made:
            return text
        pace = self.live.seconds / made
        return f"{text}, {pace:.2f} s a step, {_span(pace * (progress.steps - progress.step))} left"

    def picture(self, progress: Progress) -> Image.Image:
        """The loss curve with the latest sample beside it and those before it below."""
        title = f"{self.live.concept}  step {progress.step}/{progress.steps}  loss {progress.loss:.4f}"
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
