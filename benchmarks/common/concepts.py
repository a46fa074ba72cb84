"""Random concepts of a model's shapes, as trained files hold them."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch

from blocklora_core.concept.concept import BlockLoRA, Concept
from blocklora_core.concept.gram import EIGENPAIRS, Gram, Grams
from blocklora_core.concept.layer import Layer
from blocklora_core.concept.rows import Scheme, all_rows, count

Shapes = Mapping[str, tuple[int, int]]
"""Layer -> (m, n)."""


def make_concept(
    number: int, shapes: Shapes, rank: int, slots: int | None, parts: Callable[[str], int] = lambda _: 1
) -> BlockLoRA:
    """A random concept in slot `number`, or a plain one without `slots`. parts: see concept.keys.fused_parts."""
    random = torch.Generator().manual_seed(number)
    scheme = None if slots is None else Scheme(slots=slots)
    layers = {}
    for name, (out, size) in shapes.items():
        rows = scheme.rows(number, out, parts(name)) if scheme else all_rows(out)
        up = torch.randn(count(rows), rank, generator=random) * 0.05
        layers[name] = Layer(up, torch.randn(rank, size, generator=random) * 0.05, rows, out)
    return BlockLoRA(Concept(f"<c{number}>", "man"), layers, scheme, number if scheme else None)


def make_gram(size: int, random: torch.Generator) -> Gram:
    """As many eigenpairs as a trained file carries, with a falling spectrum, and a diagonal remainder."""
    pairs = min(EIGENPAIRS, size)
    vectors = torch.linalg.qr(torch.randn(size, pairs, generator=random)).Q.half()
    values = 10.0 / (1 + torch.arange(pairs)).float()
    return Gram(vectors, values, torch.full((size,), 0.01))


def make_grams(lora: BlockLoRA, input_of: Mapping[str, str], seed: int) -> Grams:
    """Random Grams of the usual size for the layers of `lora`, which share inputs as `input_of` says."""
    random = torch.Generator().manual_seed(1000 + seed)
    sizes = {input_of[stem]: layer.in_features for stem, layer in lora.layers.items()}
    inputs = {key: make_gram(size, random) for key, size in sorted(sizes.items())}
    return Grams(inputs, {stem: input_of[stem] for stem in lora.layers})
