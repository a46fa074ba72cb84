"""What the steps of one regional sampling share, and one call of the model among them."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Protocol, TypeVar

import torch
from torch import Tensor, nn

from ...regions import Layout, OverlapRule, Regions, Size, layout
from ..text.layerwise import Block, cross_attention_blocks
from .prompts import SIDES, Side, text_of

Value = TypeVar("Value")


class Settings(Protocol):
    """The part of regional.RegionalSampling that a session reads."""

    @property
    def regions(self) -> Regions: ...
    @property
    def rule(self) -> OverlapRule: ...
    @property
    def start(self) -> float: ...
    @property
    def end(self) -> float: ...
    @property
    def project(self) -> Any: ...
    @property
    def on_attention(self) -> Any: ...


class Session:
    """One sampling. shape: of its latents. conds: the guider's, by name; empty when unknown."""

    def __init__(self, settings: Settings, shape: Sequence[int], conds: Mapping[str, Sequence[Mapping[str, Any]]]):
        self.settings, self.shape = settings, tuple(shape)
        self.texts = {side: [text_of(region, side) for region in settings.regions] for side in SIDES}
        self._names = {prompt["uuid"]: name for name, prompts in conds.items() for prompt in prompts}
        self._cache: dict[Hashable, Any] = {}

    def cached(self, key: Hashable, make: Callable[[], Value]) -> Value:
        """What `make` gave for `key` the first time in this sampling."""
        if key not in self._cache:
            # What is made under inference mode could not be used in a forward with gradients later on.
            with torch.inference_mode(False), torch.no_grad():
                self._cache[key] = make()
        return self._cache[key]

    def clear(self) -> None:
        """Free what was kept."""
        self._cache.clear()

    def is_active(self, model_sampling: Any, t: Tensor) -> bool:
        """Whether the noise level `t` (B,) lies in the part of the sampling that has regions."""
        first, last = (model_sampling.percent_to_sigma(share) for share in (self.settings.start, self.settings.end))
        return bool(last <= float(t[0]) <= first)

    def side_of(self, uuid: Any, index: int) -> Side | None:
        """Whose regions a prompt of the sampler gets: its name decides; where it has none, its place, as in CFG."""
        name = self._names.get(uuid) if self._names else SIDES[index] if index < len(SIDES) else None
        side = next((side for side in SIDES if side == name), None)
        return side if side and any(self.prompted(side)) else None

    def layout_on(self, size: Size) -> Layout:
        """The regions on a grid of `size`."""
        return layout(self.settings.regions, size, self.settings.rule)

    def prompted(self, side: Side) -> list[bool]:
        """Which regions have a prompt of that side."""
        return [text is not None for text in self.texts[side]]


@dataclass(frozen=True, eq=False)
class Call:
    """One call of the model: x (B, C, h, w), the sampler's prompts (B, T, C), the host's options for it.

    The batch holds one part of equal size for each of `sides`.
    """

    model: Any
    session: Session
    x: Tensor
    cross: Tensor | None
    options: Mapping[str, Any]

    @cached_property
    def sides(self) -> tuple[Side | None, ...]:
        """Whose regions each part of the batch gets. ValueError when the model is shown a part of the picture."""
        indices = self.options.get("cond_or_uncond", [0])
        uuids = self.options.get("uuids", [None] * len(indices))
        sides = tuple(self.session.side_of(uuid, index) for uuid, index in zip(uuids, indices, strict=True))
        if any(sides) and tuple(self.x.shape[2:]) != self.session.shape[2:]:
            raise ValueError(
                "Regions: expected prompts for the whole picture, got one for an area of it (Conditioning Set Area). "
                "Use a region in its place."
            )
        return sides

    @property
    def network(self) -> nn.Module:
        return self.model.diffusion_model

    @property
    def layers(self) -> Mapping[Block, Any]:
        """A UNet's cross-attentions: block -> module."""
        return self.session.cached("layers", lambda: cross_attention_blocks(self.network))
