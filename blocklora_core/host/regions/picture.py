"""Which tokens of an attention are which cells of the picture: found by a look at the model, not by its name.

The model is run twice on latents that differ in their right half alone, with every attention left out, so that no token
learns of another. The tokens whose queries differ are then the picture's right half, and their pattern tells the grid.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from inspect import signature
from typing import Any, Literal

import torch
from torch import Tensor

from ...regions import Size
from .session import Call

OVERRIDE = "optimized_attention_override"

Execute = Callable[[Call], Tensor]

_PATCHES = (1, 2, 4, 8, 16, 32)
"""Latent pixels a side that one token may stand for."""

_NUMBERS = 8
"""Kept of each query, to tell it from another."""

_DIFFERS = 0.1
"""Of the largest difference: less is rounding, as formats with one scale for a whole tensor have it."""

_NOTICED = 1e-3
"""Of what a query is: where the largest difference is less, no token is of the picture."""


@dataclass(frozen=True)
class Place:
    """Where the picture stands among `tokens`: `frames` times a grid of `size`, row by row, from `start` on."""

    tokens: int
    start: int
    frames: int
    size: Size

    @property
    def cells(self) -> int:
        return self.frames * self.size[0] * self.size[1]


Places = tuple[Place | None, ...]
"""Of each attention in the order of computing; None where no query is of the picture."""


@dataclass(frozen=True)
class Asked:
    """How an attention was called: q (B, tokens, C), the shape of its output, and which `dim` of that has tokens."""

    q: Tensor
    shape: tuple[int, ...]
    dim: int

    @property
    def tokens(self) -> int:
        return self.q.shape[1]

    @classmethod
    def by(cls, attention: Callable[..., Tensor], args: Sequence[Any], named: Mapping[str, Any]) -> Asked:
        given = signature(attention).bind(*args, **named)
        given.apply_defaults()
        asked = {**given.arguments, **given.arguments.get("kwargs", {})}
        (q, _, value, *_), heads = given.arguments.values(), asked["heads"]
        by_heads, split = bool(asked.get("skip_reshape")), bool(asked.get("skip_output_reshape"))
        tokens = q.shape[2 if by_heads else 1]
        each = value.shape[-1] if by_heads else value.shape[-1] // heads
        shape = (q.shape[0], heads, tokens, each) if split else (q.shape[0], tokens, heads * each)
        return cls(q.transpose(1, 2).flatten(2) if by_heads else q, shape, 2 if split else 1)


def size_of(latents: Tensor) -> Size:
    """Rows and columns of latents (..., h, w)."""
    height, width = latents.shape[-2:]
    return height, width


def look(call: Call, execute: Execute) -> Places:
    """Where the picture stands in every attention of this call. ValueError when that cannot be seen."""
    half = call.x.shape[-1] // 2
    random = torch.Generator().manual_seed(0)
    other = torch.randn(call.x.shape, generator=random).to(call.x) * call.x.std()
    other[..., :half] = call.x[..., :half]
    (queries, out), (changed, out_changed) = (_looked(replace(call, x=x), execute) for x in (call.x, other))
    difference = (out - out_changed).abs()
    # A patch may lie on the edge.
    inside = difference[..., : max(half - _PATCHES[-1], half // 2)]
    places = tuple(_place(a, b, size_of(call.x)) for a, b in zip(queries, changed, strict=True))
    if None in places or not any(places) or float(inside.max()) > _DIFFERS * float(difference.max()):
        raise ValueError(
            f"Regions: {type(call.network).__name__} mixes parts of the picture beside the attention that ComfyUI lets "
            "others into (optimized_attention_override), so a region could not be kept to its place in it. Without "
            "this node, Conditioning (Set Mask) gives each prompt a pass of its own and mixes what comes out."
        )
    return tuple(place or None for place in places)


def _looked(call: Call, execute: Execute) -> tuple[list[Tensor], Tensor]:
    """Numbers of the queries (B, N, numbers) of every attention, and what came out."""
    seen: list[Tensor] = []

    def left_out(attention: Callable[..., Tensor], *args: Any, **named: Any) -> Tensor:
        asked = Asked.by(attention, args, named)
        random = torch.Generator().manual_seed(0)
        mixed = torch.randn(asked.q.shape[-1], _NUMBERS, generator=random).to(asked.q.device)
        seen.append(asked.q.float() @ mixed)
        return asked.q.new_zeros(asked.shape)

    return seen, execute(replace(call, options={**call.options, OVERRIDE: left_out}))


def _place(one: Tensor, other: Tensor, size: Size) -> Place | Literal[False] | None:
    """From the queries' numbers (B, N, numbers) before and after the picture's right half was changed.

    False where no query is of the picture; None where those that are make no grid.
    """
    difference = (one - other).abs().amax(dim=(0, 2))
    if float(difference.max()) <= _NOTICED * float(one.abs().max()):
        return False
    differs = (difference > _DIFFERS * difference.max()).cpu()
    found = (_on_grid(differs, size, patch) for patch in _PATCHES)
    return next(filter(None, found), None)


def _on_grid(differs: Tensor, size: Size, patch: int) -> Place | None:
    """The place whose right half is what `differs` (N,), where a token stands for `patch` latent pixels a side."""
    rows, columns = (-(-side // patch) for side in size)
    left = size[1] // 2 // patch
    count, first = int(differs.sum()), int(differs.nonzero()[0])
    frames = count // (rows * (columns - left))
    place = Place(len(differs), first - left, frames, (rows, columns))
    expected = torch.zeros(rows, columns, dtype=torch.bool)
    expected[:, left:] = True
    if not frames or place.start < 0 or place.start + place.cells > len(differs):
        return None
    whole = torch.zeros_like(differs)
    whole[place.start : place.start + place.cells] = expected.flatten().repeat(frames)
    return place if torch.equal(whole, differs) else None
