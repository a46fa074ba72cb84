"""Pictures and captions as the loop takes them: cached latents, in batches."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ...concept.names import Names
from .captions import CaptionRules


@dataclass(frozen=True)
class Example:
    """One picture: latents (C, H, W) in the model's own units, on the CPU, and its caption.

    mask: (1, H, W) in [0, 1], where the concept is; None is everywhere. Raises ValueError when it does not fit.
    """

    latents: Tensor
    caption: str
    mask: Tensor | None = None

    def __post_init__(self) -> None:
        if self.mask is None:
            return
        if self.mask.shape != (1, *self.latents.shape[-2:]):
            raise ValueError(
                f"Mask: expected {(1, *self.latents.shape[-2:])}, as the latents, got {tuple(self.mask.shape)}."
            )
        if not float(self.mask.sum()) > 0:
            raise ValueError(
                "expected a mask that holds some of the concept, got an empty one. Paint white where the concept is, "
                "or leave the picture out."
            )


@dataclass(frozen=True)
class Batch:
    """latents (B, C, H, W), their captions, and masks (B, 1, H, W) or None when no picture has one."""

    latents: Tensor
    captions: list[str]
    masks: Tensor | None = None


def with_concept(caption: str, concept: str, class_word: str) -> str:
    """The caption with the concept's name in it: as written, in place of the first class word, or in front.

    Both are found as prompts find names: in any case, and only as whole words.
    """
    if Names([concept]).within(caption):
        return caption
    words = Names([class_word] if class_word.strip() else [])
    named = words.replaced(caption, lambda _: concept, count=1)
    if named != caption:
        return named
    return f"a {concept}, {caption}" if caption.strip() else f"a {concept}"


class Dataset:
    """Examples in batches of one latent size, each epoch in a new order.

    Where a caption is shared by a whole batch of pictures, batches hold one caption: the text encoder then runs once a
    step. A batch's group is drawn in proportion to its pictures.
    """

    def __init__(self, examples: Sequence[Example], batch_size: int, rules: CaptionRules | None = None):
        if not examples:
            raise ValueError("Training pictures: expected at least one, got none.")
        self.examples, self.batch_size, self.rules = list(examples), batch_size, rules or CaptionRules()
        shared = Counter((example.latents.shape, example.caption) for example in self.examples)
        self._groups: dict[tuple[torch.Size, str], list[int]] = {}
        for number, example in enumerate(self.examples):
            whole = shared[example.latents.shape, example.caption] >= batch_size
            group = (example.latents.shape, example.caption if whole else "")
            self._groups.setdefault(group, []).append(number)
        self._queues: dict[tuple[torch.Size, str], list[int]] = {group: [] for group in self._groups}

    def __len__(self) -> int:
        return len(self.examples)

    @property
    def captions(self) -> list[str]:
        """Distinct captions as prompts read them, in order of appearance."""
        return list(dict.fromkeys(self.rules.plain(example.caption) for example in self.examples))

    @property
    def texts(self) -> list[str] | None:
        """Every text that a batch may come with; None where there is no end of them."""
        made = [self.rules.all_of(caption) for caption in self.captions]
        found = [text for texts in made if texts is not None for text in texts]
        return None if None in made else list(dict.fromkeys(found))

    @property
    def shape(self) -> torch.Size:
        """(C, H, W) of the first picture's latents: the size of what is sampled."""
        return self.examples[0].latents.shape

    @property
    def has_masks(self) -> bool:
        return any(example.mask is not None for example in self.examples)

    def batch(self, generator: torch.Generator) -> Batch:
        """The next batch_size pictures of one size."""
        groups = list(self._groups)
        shares = torch.tensor([float(len(self._groups[group])) for group in groups])
        group = groups[int(torch.multinomial(shares, 1, generator=generator))]
        queue, members = self._queues[group], self._groups[group]
        while len(queue) < self.batch_size:
            order = torch.randperm(len(members), generator=generator).tolist()
            queue.extend(members[at] for at in order)
        chosen, self._queues[group] = queue[: self.batch_size], queue[self.batch_size :]
        picked = [self.examples[number] for number in chosen]
        captions = [self.rules.apply(example.caption, generator) for example in picked]
        return Batch(torch.stack([example.latents for example in picked]), captions, _masks(picked))

    def queues(self) -> list[list[int]]:
        """Numbers of the examples that are left of each group's epoch: all that batches depend on besides chance."""
        return [list(queue) for queue in self._queues.values()]

    def put_queues(self, queues: Sequence[Sequence[int]]) -> None:
        """Go on where `queues()` was taken from an equal dataset."""
        self._queues = {group: list(queue) for group, queue in zip(self._queues, queues, strict=True)}


def _masks(examples: Sequence[Example]) -> Tensor | None:
    if all(example.mask is None for example in examples):
        return None
    everywhere = torch.ones_like(examples[0].latents[:1])
    return torch.stack([everywhere if example.mask is None else example.mask for example in examples])
