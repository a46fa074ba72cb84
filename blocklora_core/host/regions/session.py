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
        self._prompts = {prompt["uuid"]: prompt for prompts in conds.values() for prompt in prompts}
        self._cache: dict[Hashable, Any] = {}

    def kept(self, key: Hashable, make: Callable[[], Value]) -> Value:
        """What `make` gave for `key` the first time in this sampling."""
        if key not in self._cache:
            self._cache[key] = make()
        return self._cache[key]

    def cached(self, key: Hashable, make: Callable[[], Value]) -> Value:
        """The same for what a forward with gradients may use later on: it is not made under inference mode."""

        def make_plain() -> Value:
            with torch.inference_mode(False), torch.no_grad():
                return make()

        return self.kept(key, make_plain)

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

    def prompt_of(self, uuid: Any) -> Mapping[str, Any]:
        """The host's dict of a prompt of the sampler; empty when unknown."""
        return self._prompts.get(uuid, {})

    def layout_on(self, size: Size) -> Layout:
        """The regions on a grid of `size`."""
        return layout(self.settings.regions, size, self.settings.rule)

    def prompted(self, side: Side) -> list[bool]:
        """Which regions have a prompt of that side."""
        return [text is not None for text in self.texts[side]]


@dataclass(frozen=True, eq=False)
class Call:
    """One call of the model: x (B, C, h, w), its noise levels (B,), the sampler's prompts (B, T, C), what else the host
    gives with them (`concat`, `control`, and the rest by its names), and its options.

    The batch holds one part of equal size for each of `sides`.
    """

    model: Any
    session: Session
    x: Tensor
    t: Tensor
    concat: Tensor | None
    cross: Tensor | None
    control: Any
    options: Mapping[str, Any]
    rest: Mapping[str, Any]

    def part(self, number: int) -> Call:
        """The call for one of `sides` alone."""
        count, batch = len(self.sides), self.x.shape[0]
        rows = slice(number * batch // count, (number + 1) * batch // count)
        x, t, concat, cross, control, rest = (
            _rows(value, rows, batch)
            for value in (self.x, self.t, self.concat, self.cross, self.control, dict(self.rest))
        )
        own = {name: [self.options[name][number]] for name in ("cond_or_uncond", "uuids") if name in self.options}
        options = {**self.options, **own}
        return Call(self.model, self.session, x, t, concat, cross, control, options, rest)

    @property
    def uuid(self) -> Any:
        """Which of the sampler's prompts this is, of a call for one side alone."""
        return self.options.get("uuids", [None])[0]

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


def _rows(value: Any, rows: slice, batch: int) -> Any:
    """`value` with those rows of each tensor in it that has one for each of `batch`."""
    if isinstance(value, Tensor):
        return value[rows] if value.ndim and value.shape[0] == batch else value
    if isinstance(value, dict):
        return {name: _rows(one, rows, batch) for name, one in value.items()}
    return type(value)(_rows(one, rows, batch) for one in value) if type(value) in (list, tuple) else value
