"""The UNet's layout, how it starts from the demo's first base, and both forms its weights are stored in.

ComfyUI takes a checkpoint for SD1.5 only if the first convolution has 320 channels, and every level's width is a whole
multiple of that. Twice as many on the lower level would be 100M parameters, so both levels have 320 and the lower one,
where a step costs a quarter, has more blocks and all the attention.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import comfy.ops
import torch
from comfy.ldm.modules.diffusionmodules.openaimodel import UNetModel
from comfy.taesd.taesd import TAESD

from demo.base import UNET, UNET_CONFIG, VAE, read_weights
from demo.denoiser import initialise_unet

WEIGHTS = Path(__file__).parents[2] / "weights" / "people.int8.xz"
PEOPLE_UNET_CONFIG: dict[str, Any] = {
    **UNET_CONFIG,
    "num_res_blocks": [1, 2],
    "channel_mult": [1, 1],
    "transformer_depth": [0, 1, 1],
    "transformer_depth_middle": 1,
    "transformer_depth_output": [0, 0, 1, 1, 0],
}
State = dict[str, torch.Tensor]

# Block of this layout <- block of the first base, whose blocks all have the same width.
INHERITED = {
    "time_embed.": "time_embed.",
    "input_blocks.0.": "input_blocks.0.",
    "input_blocks.1.0.": "input_blocks.1.0.",
    "input_blocks.3.": "input_blocks.1.",
    "input_blocks.4.": "input_blocks.1.",
    "middle_block.": "middle_block.",
    "output_blocks.0.0.": "output_blocks.0.0.",
    "output_blocks.1.": "output_blocks.0.",
    "output_blocks.2.0.": "output_blocks.1.0.",
    "output_blocks.2.1.": "output_blocks.1.1.",
    "output_blocks.3.0.": "output_blocks.0.0.",
    "output_blocks.4.0.": "output_blocks.1.0.",
    "out.": "out.",
}
# Where the first base had one block and here are two, the second begins as doing nothing.
SECOND = ("input_blocks.4.0.out_layers.3.", "input_blocks.4.1.proj_out.", "output_blocks.0.0.out_layers.3.")


def build_unet() -> UNetModel:
    unet = UNetModel(**PEOPLE_UNET_CONFIG, dtype=torch.float32, operations=comfy.ops.disable_weight_init)
    initialise_unet(unet)
    return unet


def inherited_state(first: State) -> State:
    """What the new layout can take over from the first base's UNet."""
    state: State = {}
    for new, old in INHERITED.items():
        for name, tensor in first.items():
            if name.startswith(old):
                state[new + name.removeprefix(old)] = tensor.float().clone()
    for name in state:
        if name.startswith(SECOND):
            state[name].zero_()
    return state


@torch.no_grad()
def _pass_through(unet: UNetModel) -> None:
    """Down- and upsampling begin as the mean of four pixels and as plain doubling."""
    same = torch.eye(PEOPLE_UNET_CONFIG["model_channels"])
    for name, module in unet.named_modules():
        if name.endswith((".op", ".conv")) and isinstance(module, torch.nn.Conv2d):
            module.weight.zero_()
            if module.bias is not None:
                module.bias.zero_()
            if name.endswith(".op"):
                module.weight[:, :, 1:, 1:] = same[:, :, None, None] / 4
            else:
                module.weight[:, :, 1, 1] = same


def unet_from_first_base() -> UNetModel:
    unet = build_unet()
    first = {name.removeprefix(UNET): tensor for name, tensor in read_weights().items() if name.startswith(UNET)}
    unet.load_state_dict(inherited_state(first), strict=False)
    _pass_through(unet)
    return unet


def whole_state(unet: State, vae: TAESD) -> State:
    """UNet and VAE under their checkpoint names."""
    return {UNET + name: tensor for name, tensor in unet.items()} | {
        VAE + name: tensor for name, tensor in vae.state_dict().items()
    }


def stored_unet(weights: Path = WEIGHTS) -> UNetModel:
    unet = build_unet()
    stored = read_weights(weights)
    unet.load_state_dict({n.removeprefix(UNET): t.float() for n, t in stored.items() if n.startswith(UNET)})
    return unet
