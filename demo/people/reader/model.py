"""The reader's network: a small residual net, and for every question a place to look at and weights of its answers."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import nn

from demo.people.reader.questions import Question

WIDTHS = (32, 64, 96, 160)
GROUPS = 8
LUMINANCE = (0.299, 0.587, 0.114)


class _Block(nn.Module):
    def __init__(self, width: int):
        super().__init__()
        self.norms = nn.ModuleList([nn.GroupNorm(GROUPS, width) for _ in range(2)])
        self.convs = nn.ModuleList([nn.Conv2d(width, width, 3, padding=1) for _ in range(2)])

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = x
        for norm, conv in zip(self.norms, self.convs, strict=True):
            y = conv(F.silu(norm(y)))
        return x + y


class GeneReader(nn.Module):
    """colour_blind: it sees a picture's luminance alone."""

    def __init__(self, questions: Sequence[Question], colour_blind: bool = False, widths: Sequence[int] = WIDTHS):
        super().__init__()
        self.questions, self.colour_blind = tuple(questions), colour_blind
        self.sizes = [len(question.answers) for question in self.questions]
        # The first level, where a step costs the most, has no block.
        stem, *later = (
            nn.Conv2d(narrow, wide, 3, stride=2, padding=1)
            for narrow, wide in zip((3, *widths[:-1]), widths, strict=True)
        )
        blocks = [module for conv in later for module in (nn.SiLU(), conv, _Block(conv.out_channels))]
        self.stages = nn.Sequential(stem, *blocks, nn.GroupNorm(GROUPS, widths[-1]))
        self.keys = nn.Conv2d(widths[-1], widths[-1], 1)
        self.places = nn.Parameter(torch.randn(len(self.sizes), widths[-1]) * 0.02)
        self.answers = nn.Parameter(torch.randn(sum(self.sizes), widths[-1]) * 0.02)
        self.bias = nn.Parameter(torch.zeros(sum(self.sizes)))
        owner = torch.arange(len(self.sizes)).repeat_interleave(torch.tensor(self.sizes))
        self.register_buffer("owner", owner, persistent=False)

    def forward(self, pictures: torch.Tensor) -> list[torch.Tensor]:
        """pictures (B, 3, H, W) in [0, 1] -> for each question (B, answers), not normalised."""
        if self.colour_blind:
            weights = torch.tensor(LUMINANCE, device=pictures.device).view(3, 1, 1)
            pictures = (pictures * weights).sum(1, keepdim=True).expand_as(pictures)
        features = self.stages(pictures * 2 - 1)
        flat = features.flatten(2)  # (B, C, H W)
        looks = (self.places @ self.keys(features).flatten(2)).softmax(-1)  # (B, Q, H W)
        seen = torch.einsum("bqs,bcs->bqc", looks, flat)
        told = (seen[:, self.owner] * self.answers).sum(-1) + self.bias
        return list(told.split(self.sizes, dim=1))
