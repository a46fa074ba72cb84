"""Trainable row-block adapters on the activation path: h[rows] += r * B (A x). Weights are never rebuilt.

A row of a convolution's weight is an output channel: A looks at the input as the convolution does, B mixes what it
found.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ...concept.layer import Layer
from ...concept.rows import Rows, count, index
from ..port import AdaptedLayer
from ..regularisers.erasure import Erasure, HeldErasure
from .hooks import hooked

Product = Callable[[Tensor, Tensor], Tensor]
"""(input, weight) -> output, of a layer without bias."""

_CONVOLUTIONS: tuple[Callable[..., Tensor], ...] = (F.conv1d, F.conv2d, F.conv3d)


def products(layer: AdaptedLayer) -> tuple[Product, Product]:
    """How A and B act in `layer`."""
    look = layer.convolution
    if look is None:
        return F.linear, F.linear
    convolve = _CONVOLUTIONS[len(look.kernel) - 1]
    return partial(convolve, stride=look.stride, padding=look.padding, dilation=look.dilation), convolve


def add_rows(output: Tensor, delta: Tensor, rows: Rows, row_index: Tensor, dim: int) -> Tensor:
    """`output` with `delta` added to its `rows` along `dim`, in place. row_index: the same rows as a tensor."""
    if len(rows) == 1:
        output.narrow(dim, rows[0].start, len(rows[0])).add_(delta)
        return output
    return output.index_add_(dim, row_index, delta)


def _kaiming(rank: int, shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
    bound = 1 / math.sqrt(math.prod(shape))
    return torch.rand(rank, *shape, generator=generator) * 2 * bound - bound


class RowBlockAdapter(nn.Module):
    """B (|rows|, r[, 1, 1]), zero at first, and A (r, n[, kh, kw]), Kaiming-uniform (BlockLoRA section 3.3; ED-LoRA).

    frozen: an A that does not learn, in place of one that does.
    """

    def __init__(
        self,
        layer: AdaptedLayer,
        rows: Rows,
        rank: int,
        generator: torch.Generator,
        device: torch.device,
        frozen: Tensor | None = None,
    ):
        super().__init__()
        self.down: Tensor
        if frozen is None:
            self.down = nn.Parameter(_kaiming(rank, layer.down_shape, generator).to(device))
        else:
            self.register_buffer("down", frozen.to(device), persistent=False)
        flat = [1] * (len(layer.down_shape) - 1)
        self.up = nn.Parameter(torch.zeros(count(rows), rank, *flat, device=device))
        self.rows, self.out_features, self.parts = rows, layer.out_features, layer.parts
        self.channel_dim = 1 if layer.convolution else -1
        self._look, self._mix = products(layer)
        self.register_buffer("row_index", index(rows, device), persistent=False)
        self.row_index: Tensor

    def forward(self, x: Tensor) -> Tensor:
        """(..., n) -> change of the held rows (..., |rows|); of a convolution (B, n, H, W) -> (B, |rows|, H', W')."""
        return self._mix(self._look(x, self.down.to(x.dtype)), self.up.to(x.dtype))

    def add_to(self, output: Tensor, delta: Tensor) -> Tensor:
        """`output`, the layer's own, with `delta` from `forward` added to the held rows, in place."""
        return add_rows(output, delta, self.rows, self.row_index, self.channel_dim)

    def to_layer(self) -> Layer:
        """The trained value, on the CPU."""
        down, up = self.down.detach().float().cpu().clone(), self.up.detach().float().cpu().clone()
        return Layer(up, down, self.rows, self.out_features, 1.0, self.parts)


class AdapterSet:
    """All adapters of one run; `active` switches them without taking them off."""

    def __init__(self, adapters: Mapping[str, RowBlockAdapter], erasure: Erasure, generator: torch.Generator):
        self.adapters, self.erasure, self.generator = adapters, erasure, generator
        self.active = True
        self._masks: HeldErasure | None = None

    def parameters(self) -> list[nn.Parameter]:
        return [parameter for adapter in self.adapters.values() for parameter in adapter.parameters()]

    @contextmanager
    def attached(self, layers: Mapping[str, AdaptedLayer]) -> Iterator[None]:
        """Forward hooks on the layers' modules, gone when the block ends, however it ends."""
        with hooked(
            layers[name].module.register_forward_hook(self._hook(name, adapter))
            for name, adapter in self.adapters.items()
        ):
            yield

    @contextmanager
    def disabled(self) -> Iterator[None]:
        """The frozen model alone, without gradients."""
        self.active = False
        try:
            with torch.no_grad():
                yield
        finally:
            self.active = True

    @contextmanager
    def erasing(self) -> Iterator[None]:
        """Erasure, one mask a layer. The backward pass belongs inside, as it may compute outputs again."""
        self._masks = HeldErasure(self.erasure, self.generator)
        try:
            yield
        finally:
            self._masks = None

    def _hook(self, name: str, adapter: RowBlockAdapter) -> Callable[[nn.Module, tuple[Tensor, ...], Tensor], Tensor]:
        def add(_module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
            if not self.active:
                return output
            delta = adapter(inputs[0])
            if self._masks is not None:
                delta = self._masks.apply(name, delta, adapter.channel_dim)
            return adapter.add_to(output, delta)

        return add
