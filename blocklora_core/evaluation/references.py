"""Reference pictures of concepts: what they are to look like."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from torch import Tensor


@dataclass(frozen=True, eq=False)
class Reference:
    """Pictures of one concept that it was not trained on.

    concept: its name, as in prompts. class_word: the ordinary word for its class; may be empty. pictures: batches
    (B, H, W, 3) in [0, 1], whose sizes may differ. Raises ValueError without a name or a picture.
    """

    concept: str
    class_word: str
    pictures: tuple[Tensor, ...]

    def __post_init__(self) -> None:
        if not self.concept:
            raise ValueError("References: expected the concept's name, such as <hero>, got nothing.")
        if not sum(map(len, self.pictures)):
            raise ValueError(f"References of {self.concept}: expected at least one picture, got none.")


References = tuple[Reference, ...]
"""At most one for each concept."""


def with_reference(references: References, new: Reference) -> References:
    """`references` and `new`, whose pictures join those of the same concept. ValueError when class words disagree."""
    known = {reference.concept: reference for reference in references}
    old = known.get(new.concept)
    if old is None:
        return (*references, new)
    words = {old.class_word, new.class_word} - {""}
    if len(words) > 1:
        raise ValueError(
            f"References of {new.concept}: expected one class word, got {' and '.join(sorted(words))}. "
            "Write the same into both nodes."
        )
    known[new.concept] = replace(old, class_word="".join(words), pictures=(*old.pictures, *new.pictures))
    return tuple(known.values())


def reference_of(references: Sequence[Reference], concept: str) -> Reference:
    """ValueError, which names those there are, when there is none."""
    for reference in references:
        if reference.concept == concept:
            return reference
    known = ", ".join(reference.concept for reference in references) or "none"
    raise ValueError(f"{concept}: expected reference pictures, got those of: {known}. Add a BlockLoRA References node.")
