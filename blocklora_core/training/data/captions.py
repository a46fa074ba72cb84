"""What happens to a caption each time it is used: dropped, tags shuffled, wrapped in a template."""

from __future__ import annotations

import re
from dataclasses import dataclass

import torch

TEMPLATES: dict[str, tuple[str, ...]] = {
    "none": ("{}",),
    "person": ("a photo of {}", "a portrait of {}", "a close-up of {}", "a snapshot of {}", "a studio photo of {}"),
    "object": (
        "a photo of {}",
        "a picture of {}",
        "a close-up photo of {}",
        "a clear photo of {}",
        "a view of {}",
    ),
    "style": ("a picture in the style of {}", "an artwork in the style of {}", "a drawing in the style of {}"),
}
"""What the concept is -> phrases around the caption. Mix-of-Show trains with such templates."""


# One that is not escaped already, as booru tags often are: miku \(vocaloid\).
_BRACKET = re.compile(r"(?<!\\)[()]")


@dataclass(frozen=True)
class CaptionRules:
    """dropout: share of uses in which the caption is empty. shuffle: tags, which commas part, come in another order
    each time; the first stays in front. template: a key of TEMPLATES. emphasis: brackets weigh words as in a prompt,
    else they are just brackets. Raises ValueError when one is out of range.
    """

    dropout: float = 0.0
    shuffle: bool = False
    template: str = "none"
    emphasis: bool = False

    def __post_init__(self) -> None:
        if not 0 <= self.dropout <= 1:
            raise ValueError(f"Caption dropout: expected 0 to 1, got {self.dropout}.")
        if self.template not in TEMPLATES:
            raise ValueError(f"Caption template: expected one of {', '.join(TEMPLATES)}, got {self.template!r}.")

    def apply(self, caption: str, generator: torch.Generator) -> str:
        """The caption as this use has it. Draws from `generator` only what the rules need."""
        if self.dropout and float(torch.rand((), generator=generator)) < self.dropout:
            return ""
        if self.shuffle:
            caption = _shuffled(caption, generator)
        caption = self.plain(caption)
        phrases = TEMPLATES[self.template]
        chosen = int(torch.randint(len(phrases), (), generator=generator)) if len(phrases) > 1 else 0
        return phrases[chosen].format(caption)

    def plain(self, caption: str) -> str:
        """The caption with its brackets as they count; done twice it is as done once."""
        return caption if self.emphasis else _BRACKET.sub(r"\\\g<0>", caption)

    def all_of(self, caption: str) -> list[str] | None:
        """Every text that `apply` may make of the caption; None where tags are shuffled, as those are too many."""
        if self.shuffle:
            return None
        return [phrase.format(self.plain(caption)) for phrase in TEMPLATES[self.template]] + [""] * (self.dropout > 0)


def _shuffled(caption: str, generator: torch.Generator) -> str:
    first, *tags = [tag.strip() for tag in caption.split(",")]
    order = torch.randperm(len(tags), generator=generator).tolist()
    return ", ".join([first, *(tags[at] for at in order)])
