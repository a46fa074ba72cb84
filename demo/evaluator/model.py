"""The demo's evaluator: a small image-text model that tells whether a picture of the demo base is still its concept.

It has CLIP's form: one tower for pictures, one for captions, both ending in unit vectors of WIDTH numbers whose dot
product says how alike they are. `demo/evaluator_training.py` trains it on emoji, never on the demo's concepts;
README.md says how far it can be trusted.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from demo.base import read_weights

WEIGHTS = Path(__file__).parent.parent / "weights" / "evaluator.int8.xz"
WORDS = Path(__file__).parent.parent / "weights" / "evaluator.words.txt"
SIDE = 64
WIDTH = 128
CHANNELS = (32, 64, 128, 192)
TEXT_WIDTH, HEADS, WORDS_AT_MOST = 96, 4, 24
PADDING, UNKNOWN = 0, 1
BATCH = 64


class _Residual(nn.Module):
    def __init__(self, channels: int):
        super().__init__()
        self.norm1, self.norm2 = nn.GroupNorm(8, channels), nn.GroupNorm(8, channels)
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.conv2(F.silu(self.norm2(self.conv1(F.silu(self.norm1(x))))))


class ImageTower(nn.Module):
    """(B, 3, SIDE, SIDE) in 0..1 -> (B, WIDTH) unit vectors."""

    def __init__(self) -> None:
        super().__init__()
        layers: list[nn.Module] = [nn.Conv2d(3, CHANNELS[0], 5, 2, 2)]
        for before, after in pairwise(CHANNELS):
            layers += [nn.GroupNorm(8, before), nn.SiLU(), nn.Conv2d(before, after, 3, 2, 1), _Residual(after)]
        self.layers = nn.Sequential(*layers, nn.GroupNorm(8, CHANNELS[-1]), nn.SiLU())
        self.out = nn.Linear(2 * CHANNELS[-1], WIDTH)

    def forward(self, pictures: Tensor) -> Tensor:
        features = self.layers(pictures * 4 - 2)
        pooled = torch.cat([features.mean((2, 3)), features.amax((2, 3))], 1)
        return F.normalize(self.out(pooled).float(), dim=-1)


class TextTower(nn.Module):
    """(B, WORDS_AT_MOST) word numbers -> (B, WIDTH) unit vectors: one attention layer, then the mean of the words."""

    def __init__(self, words: int):
        super().__init__()
        self.words = nn.Embedding(words, TEXT_WIDTH)
        self.places = nn.Parameter(torch.randn(WORDS_AT_MOST, TEXT_WIDTH) * 0.1)
        self.norm1, self.norm2, self.norm3 = (nn.LayerNorm(TEXT_WIDTH) for _ in range(3))
        self.attention = nn.MultiheadAttention(TEXT_WIDTH, HEADS, batch_first=True)
        self.forward1, self.forward2 = nn.Linear(TEXT_WIDTH, 2 * TEXT_WIDTH), nn.Linear(2 * TEXT_WIDTH, TEXT_WIDTH)
        self.out = nn.Linear(TEXT_WIDTH, WIDTH)

    def forward(self, ids: Tensor) -> Tensor:
        missing = ids == PADDING
        x = self.words(ids) + self.places
        normed = self.norm1(x)
        x = x + self.attention(normed, normed, normed, key_padding_mask=missing, need_weights=False)[0]
        x = x + self.forward2(F.gelu(self.forward1(self.norm2(x))))
        there = (~missing).unsqueeze(-1).float()
        pooled = (self.norm3(x) * there).sum(1) / there.sum(1)
        return F.normalize(self.out(pooled).float(), dim=-1)


class Vocabulary:
    """Words to numbers; a word that was never seen gets UNKNOWN, and a caption without words too."""

    def __init__(self, words: Sequence[str]):
        self.numbers = {word: number for number, word in enumerate(words, UNKNOWN + 1)}

    def __len__(self) -> int:
        return len(self.numbers) + UNKNOWN + 1

    def __call__(self, captions: Sequence[str]) -> Tensor:
        """(B, WORDS_AT_MOST) int64; what is longer is cut."""
        ids = torch.full((len(captions), WORDS_AT_MOST), PADDING)
        for row, caption in zip(ids, captions, strict=True):
            found = [self.numbers.get(word, UNKNOWN) for word in split(caption)] or [UNKNOWN]
            row[: len(found)] = torch.tensor(found[:WORDS_AT_MOST])
        return ids


def split(caption: str) -> list[str]:
    return re.findall(r"[a-z]+", caption.lower())


def fit(pictures: Tensor) -> Tensor:
    """(B, 3, H, W) -> (B, 3, SIDE, SIDE), smoothed when made smaller; other shapes than squares are stretched."""
    return F.interpolate(pictures, (SIDE, SIDE), mode="bilinear", antialias=True, align_corners=False)


class Towers(nn.Module):
    def __init__(self, words: int):
        super().__init__()
        self.image, self.text = ImageTower(), TextTower(words)


class DemoEvaluator:
    """An Embedder (blocklora_core/evaluation/embedder.py) for pictures and captions of the demo base's kind."""

    def __init__(self, towers: Towers, vocabulary: Vocabulary):
        self.towers, self.vocabulary = towers.eval().requires_grad_(False), vocabulary

    @classmethod
    def load(cls, weights: Path = WEIGHTS, words: Path = WORDS) -> DemoEvaluator:
        vocabulary = Vocabulary(words.read_text(encoding="utf-8").split())
        towers = Towers(len(vocabulary))
        towers.load_state_dict({name: tensor.float() for name, tensor in read_weights(weights).items()})
        return cls(towers, vocabulary)

    @torch.no_grad()
    def images(self, pictures: Tensor) -> Tensor:
        """(B, H, W, 3) in 0..1 -> (B, WIDTH) float32, unit length."""
        if pictures.ndim != 4 or pictures.shape[-1] != 3:
            raise ValueError(f"Expected pictures of shape (B, H, W, 3) in 0..1, got {tuple(pictures.shape)}.")
        device = self.towers.image.out.weight.device
        parts = pictures.movedim(-1, 1).split(BATCH)
        return torch.cat([self.towers.image(fit(part.to(device, torch.float32))) for part in parts])

    @torch.no_grad()
    def texts(self, prompts: Sequence[str]) -> Tensor:
        """N captions -> (N, WIDTH) float32, unit length."""
        return self.towers.text(self.vocabulary(prompts).to(self.towers.image.out.weight.device))
