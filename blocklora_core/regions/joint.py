"""Regions in joint attention (SD3's MMDiT, Flux), where text and picture are one sequence.

The regions' prompts stand behind the whole picture's, and a bias on the attention's logits says who sees whom:

    picture -> prompt of region r: log w_r(i), and -> the whole picture's prompt: log of what regions leave
    prompt -> the cells where it counts, and itself; never another prompt
    picture -> picture: 0, as without regions

A softmax over logits + log w is the mean weighted by w, so it does as regional_attention does in cross-attention.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from .layout import Layout


@dataclass(frozen=True)
class Texts:
    """How the text part of the sequence is divided. base: tokens of the whole picture's prompt.

    slots: tokens kept for each region. used: how many of them its prompt has; 0 is none, the rest is padding.
    """

    base: int
    slots: tuple[int, ...]
    used: tuple[int, ...]

    @property
    def total(self) -> int:
        return self.base + sum(self.slots)


def joint_bias(layout: Layout, texts: Texts, further: int, dtype: torch.dtype) -> Tensor:
    """(N, N), query x key, for text, the cells of `layout`, and `further` tokens behind, such as reference pictures.

    Further tokens go by the whole picture's prompt, and everybody sees them. What is not seen has half of the lowest
    number of `dtype`: an infinity would give NaN where attention is computed in chunks of keys.
    """
    owners = _owners(texts)
    layout = layout.only([count > 0 for count in texts.used])
    # How much the prompt of each owner counts at each token behind the text: the base's, then the regions'.
    shares = torch.cat([layout.base[None], layout.weights])
    beyond = torch.zeros(len(shares), further)
    beyond[0] = 1
    shares = torch.cat([shares, beyond], dim=1)
    seen = torch.zeros(texts.total + shares.shape[1], texts.total + shares.shape[1])
    seen[: texts.total, : texts.total] = (owners[:, None] == owners[None]).float()
    # Padding is the owner behind the last: it counts nowhere.
    by_token = torch.cat([shares, torch.zeros(1, shares.shape[1])])[owners]
    seen[texts.total :, : texts.total] = by_token.T
    seen[: texts.total, texts.total :] = (by_token > 0).float()
    seen[: texts.total, texts.total + layout.base.numel() :] = 1
    seen[texts.total :, texts.total :] = 1
    return seen.to(dtype).log().clamp(min=torch.finfo(dtype).min / 2)


def _owners(texts: Texts) -> Tensor:
    """(T,) whose token each of the text is: 0 of the whole picture's prompt, r + 1 of region r, the last of nobody."""
    nobody = len(texts.slots) + 1
    parts = [torch.zeros(texts.base, dtype=torch.long)]
    for number, (slot, used) in enumerate(zip(texts.slots, texts.used, strict=True), start=1):
        parts.append(torch.tensor([number] * used + [nobody] * (slot - used), dtype=torch.long))
    return torch.cat(parts)


def longest(lengths: Sequence[Sequence[int]]) -> tuple[int, ...]:
    """The slots that hold every side's prompts: of each region the longest."""
    return tuple(max(each) for each in zip(*lengths, strict=True))
