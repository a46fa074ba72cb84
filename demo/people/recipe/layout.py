"""The UNet before it has learnt anything, and as it is stored."""

from __future__ import annotations

from pathlib import Path

import comfy.ops
import torch
from comfy.ldm.modules.diffusionmodules.openaimodel import UNetModel
from comfy.taesd.taesd import TAESD

from demo.base import UNET, UNET_CONFIG, VAE, WEIGHTS, read_weights

State = dict[str, torch.Tensor]


def initialise(module: torch.nn.Module) -> None:
    """PyTorch's own initialisation, which ComfyUI's operations skip."""
    for child in module.modules():
        for kind in (torch.nn.Linear, torch.nn.Conv2d):
            # Called on the class: ComfyUI's operations make the method do nothing.
            if isinstance(child, kind):
                kind.reset_parameters(child)
        if isinstance(child, (torch.nn.GroupNorm, torch.nn.LayerNorm)):
            child.weight.data.fill_(1.0)
            child.bias.data.zero_()


def initialise_unet(unet: UNetModel) -> None:
    """Every block begins as doing nothing."""
    initialise(unet)
    for name, module in unet.named_modules():
        if name.endswith((".out_layers.3", ".proj_out", "out.2")):
            module.weight.data.zero_()
            module.bias.data.zero_()


@torch.no_grad()
def pass_through(unet: UNetModel) -> None:
    """Down- and upsampling begin as the mean of four pixels and as plain doubling."""
    for name, module in unet.named_modules():
        if name.endswith((".op", ".conv")) and isinstance(module, torch.nn.Conv2d):
            same = torch.eye(len(module.weight))
            module.weight.zero_()
            if module.bias is not None:
                module.bias.zero_()
            if name.endswith(".op"):
                module.weight[:, :, 1:, 1:] = same[:, :, None, None] / 4
            else:
                module.weight[:, :, 1, 1] = same


def new_unet() -> UNetModel:
    unet = UNetModel(**UNET_CONFIG, dtype=torch.float32, operations=comfy.ops.disable_weight_init)
    initialise_unet(unet)
    pass_through(unet)
    return unet


def stored_unet(weights: Path = WEIGHTS) -> UNetModel:
    unet = new_unet()
    stored = read_weights(weights)
    unet.load_state_dict({n.removeprefix(UNET): t.float() for n, t in stored.items() if n.startswith(UNET)})
    return unet


def new_autoencoder() -> TAESD:
    vae = TAESD()
    initialise(vae)
    return vae


def stored_autoencoder(weights: Path = WEIGHTS) -> TAESD:
    vae = TAESD()
    state = read_weights(weights)
    vae.load_state_dict({name.removeprefix(VAE): tensor for name, tensor in state.items() if name.startswith(VAE)})
    return vae.float()


def whole_state(unet: State, vae: TAESD) -> State:
    """UNet and VAE under their checkpoint names."""
    return {UNET + name: tensor for name, tensor in unet.items()} | {
        VAE + name: tensor for name, tensor in vae.state_dict().items()
    }
