"""LoRA-Composer's part in one sampling: the noise that it starts from, and how far each step moves the latents."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from ...regions import Size
from ...regions.composer.options import ComposerOptions
from ...regions.composer.reinit import reinitialised
from ...regions.composer.schedule import goes_on, step_sizes
from ..text.layerwise import Block
from .attention import Boxes
from .guidance import forward, latent_gradient
from .maps import Recorder

Callback = Callable[[int, Tensor, Tensor, int], None]
"""ComfyUI's: number of the step, clean estimate, noisy latents, steps."""


class Run:
    """One sampling. sigmas: the sampler's noise levels. blocks, columns: see Recorder.

    guided: how many times the latents were moved; losses: by step, (B,), of the last time in it.
    """

    def __init__(
        self,
        options: ComposerOptions,
        boxes: Boxes,
        blocks: frozenset[Block],
        columns: Sequence[Sequence[int]],
        sigmas: Tensor,
    ):
        self.options, self.boxes, self.blocks, self.columns, self.sigmas = options, boxes, blocks, columns, sigmas
        self.guided = 0
        self.losses: dict[int, Tensor] = {}
        self._sizes = step_sizes(len(sigmas) - 1, options)
        self._active: Tensor | None = None
        self._next = 0
        self._over = not options.guides

    def counting(self, callback: Callback | None) -> Callback:
        """`callback`, at which this run counts the sampler's steps."""

        def after(step: int, clean: Tensor, noisy: Tensor, steps: int) -> None:
            self._next = max(self._next, step + 1)
            if callback is not None:
                callback(step, clean, noisy, steps)

        return after

    def guide(self, guider: Any, x: Tensor, sigma: Tensor, model_options: Mapping[str, Any]) -> None:
        """Eq. 10: move `x` (B, C, h, w), the sampler's own, against the gradient of the losses, in place.

        Once a step, before the model predicts at the step's own noise level; what a sampler asks at levels between
        steps is not guided. One that looks ahead to the next step's level (Heun) has those latents moved as well.
        """
        step = self._next
        if self._over or step >= len(self._sizes) or not _is_at(sigma, self.sigmas[step]):
            return
        if self._active is None:
            self._active = torch.ones(x.shape[0], dtype=torch.bool, device=x.device)
        recorder = Recorder(self.blocks, self.columns, self.options.reads_tokens, self.options.region > 0)
        found = latent_gradient(
            guider, x, sigma, model_options, recorder=recorder, masks_at=self.masks_at, options=self.options
        )
        if found is None:
            return
        moves = self._active & found.gradient.isfinite().flatten(1).all(1)
        if not torch.equal(moves, self._active):
            logging.warning("BlockLoRA Composer: a gradient overflowed in step %d; its picture is left as it is.", step)
        update = found.gradient * found.scale * self._sizes[step]
        x.sub_(torch.where(moves.reshape(-1, *[1] * (x.ndim - 1)), update, 0).to(x.dtype))
        self.guided += 1
        before = self.losses.get(step - 1, torch.full_like(found.loss, math.inf))
        self.losses[step] = found.loss
        self._active = moves & goes_on(step, found.loss, before, self.options)
        self._over = not bool(self._active.any())

    def reinitialise(self, guider: Any, noisy: Tensor, noise: Tensor, model_options: Mapping[str, Any]) -> Tensor:
        """The sampling's `noise` (B, C, h, w), each box with the window of it that its concept likes best.

        noisy: the latents that the sampling would start from.
        """
        recorder = Recorder(self.blocks, self.columns, tokens=True, outside=False)
        with torch.no_grad():
            forward(guider, noisy, self.sigmas[:1].expand(noisy.shape[0]).to(noisy), model_options, recorder)
        if recorder.is_empty or recorder.size is None:
            return noise
        masks = self.masks_at(recorder.size).to(noise.device)
        maps = {region: found.sum(1) for region, found in recorder.tokens().items() if bool(masks[region].any())}
        chosen = masks[list(maps)]
        each = [[found[number] for found in maps.values()] for number in range(noise.shape[0])]
        return torch.stack([reinitialised(own, scores, chosen) for own, scores in zip(noise, each, strict=True)])

    def masks_at(self, size: Size) -> Tensor:
        """The regions' masks where the sampler computes, see Boxes."""
        return self.boxes.masks(size, self.sigmas.device)


def _is_at(sigma: Tensor, level: Tensor) -> bool:
    # The host may round the level on its way to the model.
    return math.isclose(float(sigma.max()), float(level), rel_tol=1e-3)
