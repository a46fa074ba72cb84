"""Trainable row-block adapters on the activation path: h[rows] += r * B (A x). Weights are never rebuilt."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..erasure import Erasure, HeldErasure
from ..lora import Layer
from ..rows import Rows, count, index
from .port import AdaptedLayer


class RowBlockAdapter(nn.Module):
    """B (|rows|, r), zero at the start, and A (r, n), Kaiming-uniform (BlockLoRA section 3.3; ED-LoRA)."""

    def __init__(self, layer: AdaptedLayer, rows: Rows, rank: int, generator: torch.Generator, device: torch.device):
        super().__init__()
        bound = 1 / math.sqrt(layer.in_features)
        down = torch.rand(rank, layer.in_features, generator=generator) * 2 * bound - bound
        self.down = nn.Parameter(down.to(device))
        self.up = nn.Parameter(torch.zeros(count(rows), rank, device=device))
        self.rows, self.out_features = rows, layer.out_features
        self.register_buffer("row_index", index(rows, device), persistent=False)
        self.row_index: Tensor

    def forward(self, x: Tensor) -> Tensor:
        """(..., n) -> change of the held rows (..., |rows|)."""
        return F.linear(F.linear(x, self.down.to(x.dtype)), self.up.to(x.dtype))

    def add_to(self, output: Tensor, delta: Tensor) -> Tensor:
        """`output` (..., m) with `delta` (..., |rows|) added to the held rows, in place."""
        if len(self.rows) == 1 and self.rows[0].step == 1:
            output.narrow(-1, self.rows[0].start, len(self.rows[0])).add_(delta)
            return output
        return output.index_add_(-1, self.row_index, delta)

    def to_layer(self) -> Layer:
        """The trained value, on the CPU."""
        down, up = self.down.detach().float().cpu().clone(), self.up.detach().float().cpu().clone()
        return Layer(up, down, self.rows, self.out_features, 1.0)


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
        handles = []
        try:
            for name, adapter in self.adapters.items():
                handles.append(layers[name].module.register_forward_hook(self._hook(name, adapter)))
            yield
        finally:
            for handle in handles:
                handle.remove()

    @contextmanager
    def silent(self) -> Iterator[None]:
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
                delta = self._masks.apply(name, delta)
            return adapter.add_to(output, delta)

        return add
