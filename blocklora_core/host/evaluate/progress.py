"""An evaluation's progress as ComfyUI shows it: bar, line of text, and the pictures just made."""

from __future__ import annotations

import comfy.utils
from PIL import Image
from torch import Tensor

from ..page import tell

SHOWN, PREVIEW = 4, 512


class EvaluateCallback:
    """What a caller that shows progress overrides. A method that raises ends the evaluation; nothing stays patched."""

    def begin(self, pictures: int) -> None:
        """How many pictures will be sampled in all."""

    def setting(self, title: str) -> None:
        """What is sampled from now on."""

    def step(self, pictures: int) -> None:
        """So many pictures took a sampling step."""

    def done(self, pictures: Tensor) -> None:
        """(G, H, W, 3), uint8, just finished."""


class NodeProgress(EvaluateCallback):
    """Raises ComfyUI's InterruptProcessingException when the user presses cancel."""

    def __init__(self, node_id: str | None, steps: int):
        self.node_id, self.steps = node_id, steps
        self.taken = self.planned = 0
        self.title = ""

    def begin(self, pictures: int) -> None:
        self.planned = pictures
        self.bar = comfy.utils.ProgressBar(pictures * self.steps, node_id=self.node_id)

    def setting(self, title: str) -> None:
        self.title = title
        self._tell()

    def step(self, pictures: int) -> None:
        # Some samplers ask for more steps than were set.
        self.taken = min(self.taken + pictures, self.planned * self.steps)
        self.bar.update_absolute(self.taken)
        self._tell()

    def done(self, pictures: Tensor) -> None:
        self.bar.update_absolute(self.taken, preview=("JPEG", strip(pictures), PREVIEW))

    def _tell(self) -> None:
        tell(self.node_id, f"{self.title}: {self.taken // self.steps} of {self.planned} pictures")


def strip(pictures: Tensor) -> Image.Image:
    """The last few of (G, H, W, 3), uint8, side by side."""
    return Image.fromarray(pictures[-SHOWN:].transpose(0, 1).flatten(1, 2).numpy())
