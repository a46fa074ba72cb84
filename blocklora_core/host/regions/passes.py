"""Regions where a prompt acts on more than attention to it: words with places, pooled text, text that reads itself.

Each prompt has a pass of the model for itself, with all that the host gives the model for it. The passes go side by
side, and at every attention the picture's tokens are mixed: with a_r(i) what cell i gets in the pass of prompt r and
w_r(i) how much region r counts there, all passes go on with sum_r w_r(i) a_r(i). That is the equation of
regions/attention.py for attention of any kind. It takes as many passes as prompts are seen.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import comfy.samplers
import torch
from torch import Tensor

from ...regions import Size
from .lockstep import Meet, in_step
from .picture import OVERRIDE, Asked, Execute, Place, Places, look, size_of
from .prompts import Side, check_width, prompt_of
from .session import Call

Owner = int | None
"""Whose prompt a pass has: a region's number, or None for the whole picture's."""


@dataclass(frozen=True)
class _Met:
    """What a pass brings to a meeting: its attention's output, with `dim` for tokens, and where the picture stands."""

    out: Tensor
    dim: int
    place: Place


def a_pass_each(call: Call, execute: Execute) -> Tensor:
    """The model's answer (B, C, ..., h, w) to a call, each part of its batch by its side's regions."""
    parts = [call.part(number) for number in range(len(call.sides))]
    found = [
        execute(part) if side is None else _regional(part, side, execute)
        for part, side in zip(parts, call.sides, strict=True)
    ]
    return torch.cat(found)


def _regional(call: Call, side: Side, execute: Execute) -> Tensor:
    # One that counts nowhere is not asked.
    owners = tuple(owner for owner, share in _shares(call, side, size_of(call.x)).items() if bool(share.any()))
    calls = [call if owner is None else _for_region(call, side, owner) for owner in owners]
    places = [
        call.session.kept(("places", side, owner, call.uuid, call.x.shape), partial(look, own, execute))
        for owner, own in zip(owners, calls, strict=True)
    ]
    runs = [partial(_pass, own, execute, at) for own, at in zip(calls, places, strict=True)]
    weights = partial(_weights, call, side, owners)
    found = in_step(runs, partial(_mixed, weights))
    return _sum(found, weights(size_of(call.x), found[0]))


def _pass(call: Call, execute: Execute, places: Places, meet: Meet[_Met]) -> Tensor:
    meeting = _Meeting(places, meet, call.options.get(OVERRIDE))
    out = execute(replace(call, options={**call.options, OVERRIDE: meeting}))
    meeting.check(meeting.count == len(places))
    return out


class _Meeting:
    """ComfyUI's override of attention, for one pass. other: the one that was there before."""

    def __init__(self, places: Places, meet: Meet[_Met], other: Callable[..., Tensor] | None):
        self.places, self.meet, self.other = places, meet, other
        self.count = 0

    def __call__(self, attention: Callable[..., Tensor], *args: Any, **named: Any) -> Tensor:
        asked = Asked.by(attention, args, named)
        self.check(self.count < len(self.places))
        place, self.count = self.places[self.count], self.count + 1
        out = self.other(attention, *args, **named) if self.other else attention(*args, **named)
        if place is None:
            return out
        self.check(asked.tokens == place.tokens)
        return self.meet(_Met(out, asked.dim, place)).out

    def check(self, as_before: bool) -> None:
        if not as_before:
            raise ValueError(
                "Regions: expected the attentions that this model had at the first step, got others. Another node "
                "leaves out blocks or tokens (caching, merging): switch it off for this model."
            )


def _mixed(weights_on: Callable[[Size, Tensor], list[Tensor]], met: list[_Met]) -> list[_Met]:
    """What all passes go on with: the same picture, and its own other tokens."""
    place = met[0].place
    weights = [own.flatten().repeat(place.frames)[:, None] for own in weights_on(place.size, met[0].out)]
    picture = _sum([one.out.narrow(one.dim, one.place.start, one.place.cells) for one in met], weights)
    return [replace(one, out=_with_picture(one, picture)) for one in met]


def _with_picture(met: _Met, picture: Tensor) -> Tensor:
    behind = met.place.start + met.place.cells
    before = met.out.narrow(met.dim, 0, met.place.start)
    after = met.out.narrow(met.dim, behind, met.place.tokens - behind)
    return torch.cat([before, picture, after], dim=met.dim)


def _sum(found: Sequence[Tensor], weights: Sequence[Tensor]) -> Tensor:
    return torch.stack([own * weight for own, weight in zip(found, weights, strict=True)]).sum(dim=0)


def _shares(call: Call, side: Side, size: Size) -> dict[Owner, Tensor]:
    """How much each prompt counts on a grid: (h, w)."""
    session = call.session

    def make() -> dict[Owner, Tensor]:
        layout = session.layout_on(size).only(session.prompted(side))
        whole: dict[Owner, Tensor] = {None: layout.base}
        return {owner: share.unflatten(0, size) for owner, share in (whole | dict(enumerate(layout.weights))).items()}

    return session.cached(("shares", side, size), make)


def _weights(call: Call, side: Side, owners: tuple[Owner, ...], size: Size, like: Tensor) -> list[Tensor]:
    """How much each pass counts on a grid, (h, w) of the kind of `like`: together 1 everywhere, whatever a coarser
    grid gave to prompts that have no pass."""

    def make() -> list[Tensor]:
        shares = _shares(call, side, size)
        chosen = torch.stack([shares[owner] for owner in owners])
        total = chosen.sum(dim=0, keepdim=True)
        return list(torch.where(total > 0, chosen / total, 1 / len(owners)).to(like.device, like.dtype))

    return call.session.cached(("weights", side, owners, size, like.device, like.dtype), make)


def _for_region(call: Call, side: Side, region: int) -> Call:
    """The call with all that depends on the prompt made from the region's; what else the host gives stays."""
    base, own = call.session.kept(
        ("conds", side, region, call.uuid, call.x.shape), lambda: _both_conds(call, side, region)
    )
    changed = {name for name in base if name not in own or not _equal(base[name], own[name])}
    rest = {name: value for name, value in call.rest.items() if name not in changed}
    rest |= {name: value for name, value in own.items() if name in changed or name not in base}
    return replace(call, cross=rest.pop("c_crossattn", call.cross), concat=rest.pop("c_concat", call.concat), rest=rest)


def _both_conds(call: Call, side: Side, region: int) -> tuple[dict[str, Any], dict[str, Any]]:
    """What the model makes of the sampler's prompt and of the region's with everything else alike."""
    settings = call.session.settings.regions[region]
    found = prompt_of(settings, side)
    assert found is not None, "a region without a prompt has no pass"
    text, extras = found
    given = {name: value for name, value in call.session.prompt_of(call.uuid).items() if name != "model_conds"}
    base = given.get("cross_attn", call.cross)
    if isinstance(base, Tensor):
        check_width(settings, side, text, base.shape[-1])
    plain = _conds(call, side, {**given, "cross_attn": base})
    return plain, _conds(call, side, {**given, **extras, "cross_attn": text})


def _conds(call: Call, side: Side, given: Mapping[str, Any]) -> dict[str, Any]:
    (ready,) = comfy.samplers.encode_model_conds(
        call.model.extra_conds, [{**given, "model_conds": {}}], call.x, call.x.device, side,
        latent_image=torch.zeros_like(call.x), denoise_mask=None, seed=0,
    )  # fmt: skip
    made = {
        name: cond.process_cond(batch_size=call.x.shape[0], area=None) for name, cond in ready["model_conds"].items()
    }
    return comfy.samplers.cond_cat([made])


def _equal(one: Any, other: Any) -> bool:
    if isinstance(one, Tensor) and isinstance(other, Tensor):
        return one.shape == other.shape and torch.equal(one, other.to(one))
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(_equal, one, other))
    return type(one) is type(other) and bool(one == other)
