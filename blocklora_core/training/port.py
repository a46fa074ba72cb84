"""What training asks of a host: a handful of functions over a frozen model. host/ fills it from ComfyUI."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class Convolution:
    """How a convolution looks at its input. kernel: (kh, kw), or one or three sizes; padding is with zeros."""

    kernel: tuple[int, ...]
    stride: tuple[int, ...]
    padding: tuple[int, ...] | str
    dilation: tuple[int, ...]


@dataclass(frozen=True)
class AdaptedLayer:
    """A layer of the frozen model: its module and its weight's shape (out_features, in_features, *kernel)."""

    module: nn.Module
    out_features: int
    in_features: int
    convolution: Convolution | None = None

    @classmethod
    def of(cls, module: nn.Module) -> AdaptedLayer | None:
        """`module` as a layer to adapt; None where it is neither a Linear nor a convolution that can be.

        A grouped convolution cannot: its rows read different inputs, which one down-projection does not. Nor can one
        that pads with anything but zeros.
        """
        if isinstance(module, nn.Linear):
            return cls(module, module.out_features, module.in_features)
        if not isinstance(module, nn.Conv1d | nn.Conv2d | nn.Conv3d):
            return None
        if module.groups != 1 or module.padding_mode != "zeros":
            return None
        look = Convolution(tuple(module.weight.shape[2:]), module.stride, module.padding, module.dilation)
        return cls(module, module.out_channels, module.in_channels, look)

    @property
    def down_shape(self) -> tuple[int, ...]:
        """Shape of one row of A: (n,), or (n, kh, kw)."""
        return (self.in_features, *(self.convolution.kernel if self.convolution else ()))


@dataclass(frozen=True)
class Conditioning:
    """Encoded prompts: cross (B, tokens, width) and, where the model has one, pooled (B, width)."""

    cross: Tensor
    pooled: Tensor | None = None

    @staticmethod
    def cat(parts: Sequence[Conditioning]) -> Conditioning:
        pooled = [part.pooled for part in parts if part.pooled is not None]
        return Conditioning(torch.cat([part.cross for part in parts]), torch.cat(pooled) if pooled else None)

    def pick(self, rows: Sequence[int]) -> Conditioning:
        at = list(rows)
        return Conditioning(self.cross[at], None if self.pooled is None else self.pooled[at])

    def detach(self) -> Conditioning:
        return Conditioning(self.cross.detach(), None if self.pooled is None else self.pooled.detach())


Embeddings = Mapping[str, Tensor]
"""Per text encoder ("clip_l"): (tokens, width), rows V_rand, V_class."""


class Port(Protocol):
    """A frozen model. Latents are in the model's own units (ComfyUI's `process_latent_in` applied)."""

    base: str
    device: torch.device

    @property
    def layers(self) -> Mapping[str, AdaptedLayer]:
        """The layers to adapt, by the key stem that a file stores."""
        ...

    @property
    def sigmas(self) -> Tensor:
        """The model's noise levels, ascending: (levels,)."""
        ...

    def encode(self, prompt: str, concept: str, embeddings: Embeddings) -> Conditioning:
        """One encoded prompt in which the word `concept` stands for `embeddings`. Gradients flow into them."""
        ...

    def class_embeddings(self, class_word: str) -> Embeddings:
        """The class word's token embedding in each text encoder that can take one: (1, width)."""
        ...

    def add_noise(self, latents: Tensor, noise: Tensor, sigma: Tensor) -> Tensor:
        """Latents at noise level `sigma` (B,)."""
        ...

    def predict(self, noisy: Tensor, sigma: Tensor, conditioning: Conditioning) -> Tensor:
        """The model's estimate of the clean latents."""
        ...

    def loss_scale(self, sigma: Tensor) -> Tensor:
        """(B,): factor that turns an error of the clean estimate into one of the model's own output."""
        ...

    def snr(self, sigma: Tensor) -> Tensor:
        """(B,): signal-to-noise ratio of noisy latents, as powers: (signal / noise)^2 at noise level `sigma`."""
        ...
