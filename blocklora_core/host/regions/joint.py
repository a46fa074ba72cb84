"""Regions in joint attention (SD3's MMDiT, Flux.1, Chroma): longer prompts, and a bias on who sees whom."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from comfy.ldm.modules.diffusionmodules.mmdit import MMDiT
from torch import Tensor

from ...regions import Size, Texts, joint_bias, longest
from ...training.port import is_linear
from ..compat import axes_of_words
from .prompts import SIDES, Side
from .session import Call, Session

OVERRIDE = "optimized_attention_override"


def with_joint_attention(call: Call) -> Call:
    """The call with the regions' prompts behind the sampler's, and every joint attention told who sees whom."""
    assert call.cross is not None
    session, base = call.session, call.cross.shape[1]
    used = {side: tuple(0 if text is None else text.shape[1] for text in session.texts[side]) for side in SIDES}
    slots = longest([used[side] for side in call.sides if side])
    longer = [
        torch.cat([part, *_behind(session, side, slots, part)], dim=1)
        for side, part in zip(call.sides, call.cross.chunk(len(call.sides)), strict=True)
    ]
    texts = [Texts(base, slots, used[side] if side else (0,) * len(slots)) for side in call.sides]
    biased = _Biased(call, texts, call.options.get(OVERRIDE))
    return replace(call, cross=torch.cat(longer), options={**call.options, OVERRIDE: biased})


def _behind(session: Session, side: Side | None, slots: tuple[int, ...], part: Tensor) -> list[Tensor]:
    """Each region's prompt for one part of the batch, filled up to its slot with zeros that nobody sees."""
    found = []
    for slot, text in zip(slots, session.texts[side] if side else [None] * len(slots), strict=True):
        filled = part.new_zeros(part.shape[0], slot, part.shape[2])
        if text is not None:
            filled[:, : text.shape[1]] = text.to(part)
        found.append(filled)
    return found


class _Biased:
    """ComfyUI's override of attention, for one call of the model. other: the one that was there before."""

    def __init__(self, call: Call, texts: list[Texts], other: Callable[..., Tensor] | None):
        self.call, self.texts, self.other = call, texts, other
        patch = call.model.diffusion_model.patch_size
        self.size: Size = (-(-call.x.shape[-2] // patch), -(-call.x.shape[-1] // patch))

    def __call__(self, attention: Callable[..., Tensor], q: Tensor, *args: Any, **named: Any) -> Tensor:
        tokens = q.shape[2 if named.get("skip_reshape") else 1]
        further = tokens - self.texts[0].total - self.size[0] * self.size[1]
        # Fewer: a block's attention among the picture's tokens alone, as SD3.5 medium has.
        if further >= 0:
            if named.get("mask") is not None:
                raise ValueError(
                    "Regions: expected attention without a mask, got one from another node, such as a style model's "
                    "with a strength. Regions cannot be put together with it: take that node out."
                )
            named["mask"] = self._bias(further, q)
        if self.other:
            return self.other(attention, q, *args, **named)
        return attention(q, *args, **named)

    def _bias(self, further: int, q: Tensor) -> Tensor:
        """(1 or B, 1, N, N), a bias for each part of the batch."""
        session = self.call.session

        def make() -> Tensor:
            own = [joint_bias(session.layout_on(self.size), texts, further, q.dtype) for texts in self.texts]
            each = q.shape[0] // len(own)
            return torch.stack(own).to(q.device)[:, None].repeat_interleave(1 if len(own) == 1 else each, dim=0)

        return session.cached(
            (self.call.sides, tuple(self.texts), self.size, further, q.shape[0], q.device, q.dtype), make
        )


def takes_longer_prompts(network: Any) -> bool:
    """Whether more words change nothing but who attends to them: not where words have places, as in Flux.2.

    Nor where they are mixed before any attention, as in MMDiTs with registers or a processor of the context, or by a
    reader of the text that is more than one layer.
    """
    if isinstance(network, MMDiT):
        return network.register_length == 0 and network.context_processor is None
    two_streams = all(hasattr(network, name) for name in ("double_blocks", "single_blocks", "params", "txt_in"))
    if not two_streams or not is_linear(network.txt_in):
        return False
    return len(network.params.axes_dim) == 3 and not axes_of_words(network)
