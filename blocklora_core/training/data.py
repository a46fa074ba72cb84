"""Pictures and captions as the loop takes them: cached latents, batches of one size."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Example:
    """One picture: latents (C, H, W) in the model's own units, on the CPU, and its caption."""

    latents: Tensor
    caption: str


def with_concept(caption: str, concept: str, class_word: str) -> str:
    """The caption with the concept's name in it: as written, in place of the class word, or in front."""
    if concept in caption:
        return caption
    words = caption.split(" ")
    if class_word and class_word in words:
        words[words.index(class_word)] = concept
        return " ".join(words)
    return f"a {concept}, {caption}" if caption.strip() else f"a {concept}"


class Dataset:
    """Examples, shuffled by epoch; a batch holds one latent size, chosen in proportion to its pictures."""

    def __init__(self, examples: Sequence[Example]):
        if not examples:
            raise ValueError("Training pictures: expected at least one, got none.")
        self.examples = list(examples)
        self._by_size: dict[tuple[int, ...], list[int]] = {}
        for number, example in enumerate(self.examples):
            self._by_size.setdefault(tuple(example.latents.shape), []).append(number)
        self._queues: dict[tuple[int, ...], list[int]] = {size: [] for size in self._by_size}

    def __len__(self) -> int:
        return len(self.examples)

    @property
    def captions(self) -> list[str]:
        """Distinct captions, in order of appearance."""
        return list(dict.fromkeys(example.caption for example in self.examples))

    def batch(self, size: int, generator: torch.Generator) -> tuple[Tensor, list[str]]:
        """Latents (size, C, H, W) and their captions."""
        sizes = list(self._by_size)
        shares = torch.tensor([float(len(self._by_size[shape])) for shape in sizes])
        shape = sizes[int(torch.multinomial(shares, 1, generator=generator))]
        queue, members = self._queues[shape], self._by_size[shape]
        while len(queue) < size:
            order = torch.randperm(len(members), generator=generator).tolist()
            queue.extend(members[at] for at in order)
        chosen, self._queues[shape] = queue[:size], queue[size:]
        picked = [self.examples[number] for number in chosen]
        return torch.stack([example.latents for example in picked]), [example.caption for example in picked]
