"""One forward that reads attention maps, and the gradient of LoRA-Composer's losses by the latents."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, NamedTuple

import comfy.model_patcher
import comfy.samplers
import torch
from comfy.ldm.modules.attention import attention_pytorch
from torch import Tensor, nn

from ...regions import Size
from ...regions.composer.losses import constraint_loss
from ...regions.composer.maps import smooth
from ...regions.composer.options import ComposerOptions
from ...training.checkpointing import checkpointed, heavy_blocks
from ..weights.autograd import leave_inference_mode, training_mode
from .context import KEY, context_of
from .maps import Recorder

SCALED = 1024.0
"""The loss is this much larger in the backward pass, so that small gradients survive half precision."""


MasksAt = Callable[[Size], Tensor]
"""Rows and columns -> the regions' masks (R, h, w) bool, where the model computes."""


class LatentGradient(NamedTuple):
    """loss: (B,). gradient: (B, C, h, w), by the latents as the network takes them in, as in the paper (Eq. 10).

    scale: what the sampler's latents are divided by to be that.
    """

    loss: Tensor
    gradient: Tensor
    scale: Tensor


def latent_gradient(
    guider: Any,
    x: Tensor,
    sigma: Tensor,
    model_options: Mapping[str, Any],
    recorder: Recorder,
    masks_at: MasksAt,
    options: ComposerOptions,
) -> LatentGradient | None:
    """What the losses make of the latents `x` (B, C, h, w) at noise level `sigma` (B,).

    None where no prompt of the sampler acts at this noise level. Nothing of the model has changed afterwards, however
    this ends; memory is bounded by gradient checkpointing.
    """
    model = guider.inner_model
    with training_mode(), _frozen(model, x.device), checkpointed(heavy_blocks(model.diffusion_model, ())):
        x, sigma = x.clone(), sigma.clone()
        scale = 1 / model.model_sampling.calculate_input(sigma, torch.ones_like(x))
        latents = (x / scale).requires_grad_()
        try:
            forward(guider, latents * scale, sigma, model_options, recorder)
            recorder.close()
            loss = _loss(recorder, masks_at, options)
            if loss is None:
                return None
            (gradient,) = torch.autograd.grad(loss.sum() * SCALED, latents)
        finally:
            recorder.clear()
    return LatentGradient(loss.detach(), gradient / SCALED, scale)


def _loss(recorder: Recorder, masks_at: MasksAt, options: ComposerOptions) -> Tensor | None:
    """(B,); None where nothing was recorded or no region has a pixel."""
    if recorder.is_empty or recorder.size is None:
        return None
    kernel, sigma = options.smoothing_kernel, options.smoothing_sigma
    tokens = {region: smooth(maps, kernel, sigma) for region, maps in recorder.tokens().items()}
    loss = constraint_loss(tokens, recorder.outside(), masks_at(recorder.size), options)
    return loss if loss.requires_grad else None


def forward(guider: Any, x: Tensor, sigma: Tensor, model_options: Mapping[str, Any], recorder: Recorder) -> None:
    """Show the model `x` with the positive prompt alone, as far as `recorder` needs it."""
    options = comfy.model_patcher.create_model_options_clone(dict(model_options))
    transformer_options = options.setdefault("transformer_options", {})
    transformer_options[KEY] = replace(context_of(transformer_options), recorder=recorder)
    # Some attention functions have no gradient (SageAttention), or a costly one.
    transformer_options["optimized_attention_override"] = _differentiable
    transformer_options.setdefault("patches", {}).setdefault("output_block_patch", []).append(recorder.after_block)
    for prompt in guider.conds.get("positive") or ():
        # A prompt for an area shows the model a part of the picture only.
        if "area" in prompt or comfy.samplers.get_area_and_mult(prompt, x, sigma) is None:
            continue
        with recorder.until_complete():
            comfy.samplers.calc_cond_batch(guider.inner_model, [[_control_apart(prompt)]], x, sigma, options)
        return


def _differentiable(_attention: Any, *args: Any, **named: Any) -> Tensor:
    return attention_pytorch(*args, **named)


def _control_apart(prompt: dict[str, Any]) -> dict[str, Any]:
    return {**prompt, "control": _Apart(prompt["control"])} if prompt.get("control") is not None else prompt


class _Apart:
    """A ControlNet whose hints are taken as given: no gradient goes through it, and its weights stay as loaded."""

    def __init__(self, control: Any):
        self._control = control

    def __getattr__(self, name: str) -> Any:
        return getattr(self._control, name)

    def get_control(self, x: Tensor, *args: Any) -> Any:
        with torch.inference_mode():
            hints = self._control.get_control(x.detach(), *args)
        return {name: [_ordinary(hint) for hint in found] for name, found in hints.items()} if hints else hints


def _ordinary(hint: Any) -> Any:
    return hint.clone() if isinstance(hint, Tensor) else hint


@contextmanager
def _frozen(module: nn.Module, device: torch.device) -> Iterator[None]:
    """No weight asks for a gradient until the block ends; then those that did do so again."""
    leave_inference_mode(module, device)
    asking = [weight for weight in module.parameters() if weight.requires_grad]
    try:
        for weight in asking:
            weight.requires_grad_(False)
        yield
    finally:
        for weight in asking:
            weight.requires_grad_(True)
