"""Collects a concept's Grams: what its layers' inputs look like while its own prompts are sampled."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial

import torch
from torch import Tensor, nn
from torch.utils.weak import WeakTensorKeyDictionary

from ..cancel import patiently
from ..concept.gram import EIGENPAIRS, Gram, Grams
from ..concept.gram_sketch import GramAccumulator
from .adapters.hooks import hooked
from .port import AdaptedLayer, Conditioning, Port
from .sampling import OnStep, euler, ignore


class InputRecorder:
    """Accumulates one Gram per distinct input. Layers called with the same tensor share one: q, k and v of a block, k
    and v of all blocks that read the prompt.
    """

    def __init__(self, layers: Mapping[str, AdaptedLayer], eigenpairs: int = EIGENPAIRS):
        self.layers, self.eigenpairs = layers, eigenpairs
        self.input_of: dict[str, str] = {}
        self.totals: dict[str, GramAccumulator] = {}
        # Input that is still alive -> (how often it was written to, its id).
        self._seen: WeakTensorKeyDictionary = WeakTensorKeyDictionary()

    def grams(self) -> Grams:
        """What was seen, once; each sketch goes as its Gram comes. Layers that were never asked saw silence."""
        made: dict[str, Gram] = {}
        # What a Gram takes while it is made grows with its width: the widest when most sketches have gone.
        for key in sorted(self.totals, key=lambda key: (self.totals[key].size, key)):
            total = self.totals.pop(key)
            made[key] = patiently(partial(total.gram, self.eigenpairs), 1e3 * total.total.numel())
        idle = {name: f"idle {name}" for name in self.layers if name not in self.input_of}
        silent = {key: Gram.silent(self.layers[name].in_features) for name, key in idle.items()}
        return Grams({**dict(sorted(made.items())), **silent}, {**self.input_of, **idle})

    @contextmanager
    def attached(self) -> Iterator[None]:
        with hooked(layer.module.register_forward_pre_hook(self._hook(name)) for name, layer in self.layers.items()):
            yield

    def _hook(self, name: str) -> Callable[[nn.Module, tuple[Tensor, ...]], None]:
        def record(_module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
            x = inputs[0]
            version, known = self._seen.get(x, (None, ""))
            if version == x._version and self.input_of.get(name, known) == known:
                self.input_of[name] = known
                return
            key = self.input_of.setdefault(name, name)
            self._seen[x] = (x._version, key)
            if key not in self.totals:
                self.totals[key] = GramAccumulator(x.shape[-1], x.device, self.eigenpairs)
            self.totals[key].add(x)

        return record


def collect_grams(
    port: Port,
    layers: Mapping[str, AdaptedLayer],
    encode: Callable[[], Conditioning],
    latent_shape: torch.Size,
    steps: int,
    generator: torch.Generator,
    on_step: OnStep = ignore,
    eigenpairs: int = EIGENPAIRS,
) -> Grams:
    """Grams over a full sampling run without guidance (algorithms: gradient fusion's spatial features).

    encode: gives the prompts, one row per picture; what text encoders' layers see meanwhile counts too.
    latent_shape: (C, H, W). on_step: called after each step; what it raises is passed on. eigenpairs: kept of
    each Gram. Not under inference mode.
    """
    recorder = InputRecorder(layers, eigenpairs)
    with recorder.attached():
        conditioning = encode()
        noise = torch.randn((len(conditioning), *latent_shape), generator=generator).to(port.device)
        euler(port, noise, conditioning, steps, on_step=on_step)
    return recorder.grams()
