"""What an evaluation is asked to measure."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field

from ...concept.prompt_lines import PLACEHOLDER, PLAIN, in_turn
from ...merge import DEFAULTS, Options, Overlap
from .generate import Sampling

PROMPTS = (
    f"a photo of {PLAIN}",
    f"{PLAIN} in front of a castle",
    f"{PLAIN} on a beach",
    f"{PLAIN} in the snow",
    f"{PLAIN} in a forest",
    f"{PLAIN} in a city street at night",
    f"{PLAIN} on a wooden floor",
    f"a close-up of {PLAIN}",
    f"an oil painting of {PLAIN}",
    f"a pencil drawing of {PLAIN}",
)
"""Of the kinds that Mix-of-Show tests with: plain, in other places, in other styles."""


@dataclass(frozen=True)
class EvaluateJob:
    """What to measure. Raises ValueError for numbers out of range.

    prompts: with `{concept}`; empty for PROMPTS. pictures: of each concept in each setting, prompts taken in turn.
    counts: how many concepts to merge; subsets are nested, in an order that the seed draws. drift: whether to sample
    the class words. method, overlap, options: as in `merge`. names: of the concepts whose pictures are sampled, of all
    that are merged; empty for all.
    """

    prompts: Sequence[str] = ()
    pictures: int = 20
    counts: Sequence[int] = ()
    drift: bool = True
    method: str = "auto"
    overlap: Overlap = "error"
    options: Options = DEFAULTS
    sampling: Sampling = field(default_factory=Sampling)
    names: Collection[str] = ()

    def __post_init__(self) -> None:
        if self.pictures < 1:
            raise ValueError(f"Evaluate: expected at least one picture a concept, got {self.pictures}.")
        for line in self.lines:
            if PLACEHOLDER not in line:
                raise ValueError(f"Evaluate: expected {PLACEHOLDER} in every prompt, got {line!r}.")

    @property
    def lines(self) -> list[str]:
        return [line.strip() for line in self.prompts if line.strip()] or list(PROMPTS)

    def prompts_for(self, called: str) -> list[str]:
        """One for each picture."""
        return in_turn(self.lines, called, self.pictures)


def parse_counts(text: str, concepts: int) -> tuple[int, ...]:
    """Such as `1, 3, all` -> the numbers, rising, each once; at most `concepts`. ValueError for anything else."""
    found = set()
    for word in text.replace(",", " ").split():
        if word != "all" and not word.isdecimal():
            raise ValueError(f"Counts: expected numbers or all, such as 1, 3, all, got {word!r}.")
        found.add(concepts if word == "all" else int(word))
    check_counts(sorted(found), concepts)
    return tuple(sorted(found))


def check_counts(counts: Sequence[int], concepts: int) -> None:
    """ValueError unless so many of `concepts` can be merged."""
    for number in counts:
        if not 1 <= number <= concepts:
            raise ValueError(f"Counts: expected 1 to {concepts}, the concepts in the stack, got {number}.")
