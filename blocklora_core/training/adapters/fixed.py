"""Finished layers on the activation path, h[rows] += scale * B (A x): a concept applied without touching a weight."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial

import torch
from torch import Tensor, nn

from ...concept.layer import Layer
from ...concept.rows import index
from ..port import AdaptedLayer
from .hooks import hooked
from .trainable import add_rows, products


class FixedLayer:
    """One layer, ready for the module that it changes.

    ShapeError when it was made for another shape.
    """

    def __init__(self, module: AdaptedLayer, layer: Layer):
        self.module, self.layer = module, layer.fitted((module.out_features, *module.down_shape))
        self.dim = 1 if module.convolution else -1
        self._look, self._mix = products(module)
        self._ready: tuple[tuple[torch.device, torch.dtype], tuple[Tensor, Tensor, Tensor]] | None = None

    def add_to(self, output: Tensor, x: Tensor) -> Tensor:
        """The module's `output` for the input `x`, changed in place."""
        up, down, rows = self._weights(x)
        delta = self._mix(self._look(x, down), up).to(output.dtype)
        return add_rows(output, delta, self.layer.rows, rows, self.dim)

    def _weights(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        # Kept where they were last needed: a sampler calls hundreds of times from one device in one format.
        place = (x.device, x.dtype)
        if self._ready is None or self._ready[0] != place:
            # What is kept under inference mode could not be used in a forward with gradients later on.
            with torch.inference_mode(False), torch.no_grad():
                self._ready = (place, self._made(*place))
        return self._ready[1]

    def _made(self, device: torch.device, dtype: torch.dtype) -> tuple[Tensor, Tensor, Tensor]:
        layer = self.layer
        up = (layer.up.float() * layer.scale).to(device, dtype)
        up = up.reshape(*up.shape[:2], *[1] * (len(self.module.down_shape) - 1))
        down = layer.down.to(device, dtype)
        return up, down.clone() if down.is_inference() else down, index(layer.rows, device)


class FixedLayers:
    """All layers of one concept."""

    def __init__(self, layers: Sequence[FixedLayer]):
        self.layers = tuple(layers)

    @contextmanager
    def attached(self) -> Iterator[None]:
        """Forward hooks on the modules, gone when the block ends, however it ends."""
        with hooked(layer.module.module.register_forward_hook(partial(_add, layer)) for layer in self.layers):
            yield


def _add(layer: FixedLayer, _module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
    return layer.add_to(output, inputs[0])
