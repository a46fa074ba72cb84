"""Collects a concept's Grams: what its layers' inputs look like while its own prompts are sampled."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from ..grams import GramAccumulator, Grams
from .port import AdaptedLayer, Conditioning, Port
from .sampling import euler


class InputWatch:
    """Accumulates one Gram per distinct input; layers called with the same tensor share one."""

    def __init__(self, layers: Mapping[str, AdaptedLayer]):
        self.layers = layers
        self.input_of: dict[str, str] = {}
        self.totals: dict[str, GramAccumulator] = {}
        self._seen: tuple[Tensor, str] | None = None

    @contextmanager
    def attached(self) -> Iterator[None]:
        handles = []
        try:
            for name, layer in self.layers.items():
                handles.append(layer.module.register_forward_pre_hook(self._hook(name)))
            yield
        finally:
            self._seen = None
            for handle in handles:
                handle.remove()

    def _hook(self, name: str) -> Callable[[nn.Module, tuple[Tensor, ...]], None]:
        def watch(_module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
            x = inputs[0]
            # q, k and v are called one after the other with the very same tensor.
            if (
                self._seen is not None
                and self._seen[0] is x
                and self.input_of.get(name, self._seen[1]) == self._seen[1]
            ):
                self.input_of[name] = self._seen[1]
                return
            key = self.input_of.setdefault(name, name)
            self._seen = (x, key)
            if key not in self.totals:
                self.totals[key] = GramAccumulator(x.shape[-1], x.device)
            self.totals[key].add(x)

        return watch


def collect_grams(
    port: Port,
    layers: Mapping[str, AdaptedLayer],
    encode: Callable[[], Conditioning],
    latent_shape: torch.Size,
    steps: int,
    generator: torch.Generator,
) -> Grams:
    """Grams over a full sampling run without guidance (algorithms: gradient fusion's spatial features).

    encode: gives the prompts, one row per picture; what text encoders' layers see meanwhile counts too.
    latent_shape: (C, H, W).
    """
    watch = InputWatch(layers)
    with watch.attached():
        conditioning = encode()
        noise = torch.randn((conditioning.cross.shape[0], *latent_shape), generator=generator).to(port.device)
        euler(port, noise, conditioning, steps)
    full = {key: total.mean().cpu() for key, total in watch.totals.items()}
    return Grams.from_full(full, watch.input_of)
