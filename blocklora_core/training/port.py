"""What training asks of a host: a handful of functions over a frozen model. host/ fills it from ComfyUI."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol, cast

import torch
from torch import Tensor, nn

from ..concept.rows import Parts


@dataclass(frozen=True)
class Convolution:
    """How a convolution looks at its input. kernel: (kh, kw), or one or three sizes; padding is with zeros."""

    kernel: tuple[int, ...]
    stride: tuple[int, ...]
    padding: tuple[int, ...] | str
    dilation: tuple[int, ...]


def is_linear(module: nn.Module) -> bool:
    """Whether `module` is a Linear by what it is: hosts' quantised ones are no torch.nn.Linear."""
    sizes = (getattr(module, "in_features", None), getattr(module, "out_features", None))
    weight = getattr(module, "weight", None)
    return all(isinstance(size, int) for size in sizes) and isinstance(weight, Tensor) and weight.ndim == 2


@dataclass(frozen=True)
class AdaptedLayer:
    """A layer of the frozen model: its module and its weight's shape (out_features, in_features, *kernel).

    parts: of its rows, where it is several layers in one and its name does not tell, see concept.rows.
    """

    module: nn.Module
    out_features: int
    in_features: int
    convolution: Convolution | None = None
    parts: Parts = ()

    @classmethod
    def of(cls, module: nn.Module) -> AdaptedLayer | None:
        """`module` as a layer to adapt; None where it is neither a Linear nor a convolution that can be.

        A grouped convolution cannot: its rows read different inputs, which one down-projection does not. Nor can one
        that pads with anything but zeros.
        """
        if is_linear(module):
            return cls(module, cast(int, module.out_features), cast(int, module.in_features))
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
class CrossAttention:
    """A cross-attention of the frozen model: its projections of pixels and of tokens, and its number of heads."""

    to_q: nn.Module
    to_k: nn.Module
    heads: int


@dataclass(frozen=True)
class Prompt:
    """One encoded prompt: cross (1, tokens, width) and what else the host's encoder gives with it, by the host's names.

    concept_at: place of the concept's first vector among the tokens that a layer reads; None where it is not in it.
    """

    cross: Tensor
    extras: Mapping[str, Any] = field(default_factory=dict)
    concept_at: int | None = None

    def changed(self, change: Callable[[Tensor], Tensor]) -> Prompt:
        """The same with every tensor changed."""
        extras = {name: change(value) if isinstance(value, Tensor) else value for name, value in self.extras.items()}
        return replace(self, cross=change(self.cross), extras=extras)


@dataclass(frozen=True)
class Conditioning:
    """A batch of encoded prompts, each of a length of its own.

    They are never made equally long: joint attention counts tokens, and what stands in their places changes it.
    """

    prompts: tuple[Prompt, ...]

    def __len__(self) -> int:
        return len(self.prompts)

    @property
    def cross(self) -> Tensor:
        """(B, longest, width), zeros behind the shorter ones: to look at. A model is shown each at its own length."""
        return nn.utils.rnn.pad_sequence([prompt.cross[0] for prompt in self.prompts], batch_first=True)

    @property
    def concept_at(self) -> tuple[int | None, ...]:
        return tuple(prompt.concept_at for prompt in self.prompts)

    @staticmethod
    def cat(parts: Sequence[Conditioning]) -> Conditioning:
        """One below the other."""
        return Conditioning(tuple(prompt for part in parts for prompt in part.prompts))

    def pick(self, rows: Sequence[int]) -> Conditioning:
        return Conditioning(tuple(self.prompts[row] for row in rows))

    def detach(self) -> Conditioning:
        return Conditioning(tuple(prompt.changed(Tensor.detach) for prompt in self.prompts))


Embeddings = Mapping[str, Tensor]
"""Per text encoder ("clip_l"): (tokens, width), rows V_rand, V_class; layer-wise (layers, tokens, width)."""


class Port(Protocol):
    """A frozen model. Latents are in the model's own units (ComfyUI's `process_latent_in` applied)."""

    base: str
    device: torch.device

    @property
    def layers(self) -> Mapping[str, AdaptedLayer]:
        """The layers to adapt, by the key stem that a file stores."""
        ...

    @property
    def text_layers(self) -> Mapping[str, AdaptedLayer]:
        """The same of the text encoders."""
        ...

    @property
    def cross_attentions(self) -> Sequence[CrossAttention]:
        """The model's cross-attentions, in the order in which they compute; empty when it has none."""
        ...

    @property
    def prompt_layers(self) -> int:
        """How many cross-attention layers can each read an encoding of their own; 0 when the model has none."""
        ...

    @property
    def sigmas(self) -> Tensor:
        """The model's noise levels, ascending: (levels,)."""
        ...

    def encode(self, prompt: str, concept: str, embeddings: Embeddings) -> Conditioning:
        """One encoded prompt in which the word `concept` stands for `embeddings`. Gradients flow into them."""
        ...

    def release_text(self) -> None:
        """The text encoder may leave the device; `encode` brings it back."""
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

    @property
    def passes(self) -> Sequence[Sequence[int]]:
        """Of the last prediction: numbers of the prompts that the model was shown at a time."""
        ...

    def loss_scale(self, sigma: Tensor) -> Tensor:
        """(B,): factor that turns an error of the clean estimate into one of the model's own output."""
        ...

    def snr(self, sigma: Tensor) -> Tensor:
        """(B,): signal-to-noise ratio of noisy latents, as powers: (signal / noise)^2 at noise level `sigma`."""
        ...
