"""A ControlNet for the demo's base, as one begins its training: the base's own encoder, and a hint of a picture."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

from demo.base import UNET, UNET_CONFIG, read_weights

HINT = (3, 16, 16, 32, 32, 96, 96, 256, int(UNET_CONFIG["model_channels"]))
"""Channels of the convolutions that read the picture; every third of the six in the middle halves its sides."""


def write_controlnet(path: Path, strength: float = 0.05) -> None:
    """strength: of its random outputs; a trainer begins with 0, which would show nothing."""
    encoder = ("input_blocks.", "middle_block.", "time_embed.")
    base = {name.removeprefix(UNET): value.float() for name, value in read_weights().items() if name.startswith(UNET)}
    state = {name: value for name, value in base.items() if name.startswith(encoder)}
    random = torch.Generator().manual_seed(0)
    for number, (into, out) in enumerate(pairwise(HINT)):
        state |= _convolution(f"input_hint_block.{2 * number}", into, out, 3, random, (into * 9) ** -0.5)
    blocks = len({name.split(".")[1] for name in state if name.startswith("input_blocks.")})
    for name in [*(f"zero_convs.{number}.0" for number in range(blocks)), "middle_block_out.0"]:
        state |= _convolution(name, HINT[-1], HINT[-1], 1, random, strength)
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file({name: value.contiguous() for name, value in state.items()}, path)


def _convolution(name: str, into: int, out: int, side: int, random: torch.Generator, scale: float) -> dict[str, Tensor]:
    weight = torch.randn((out, into, side, side), generator=random) * scale
    return {f"{name}.weight": weight, f"{name}.bias": torch.zeros(out)}
