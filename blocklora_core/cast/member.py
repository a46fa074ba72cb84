"""What a cast is: concepts with pictures and settings of their own, and who of them meets whom."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from ..concept.concept import Concept
from ..training import TrainConfig


class CastError(ValueError):
    """A cast, or a file of it, that is not what was expected; says which file and which key."""


@dataclass(frozen=True)
class RunSettings:
    """What Train's node has besides a TrainConfig, with its defaults."""

    resolution: int = 512
    layers: str = "attention"
    layer_pattern: str = ""
    precision: str = "auto"
    checkpointing: bool = False


@dataclass(frozen=True)
class Member:
    """One concept of a cast.

    key: what the cast calls it, its folder's name or its table's. words: the caption of pictures that have none.
    slot: set by hand, else None.
    """

    key: str
    concept: Concept
    folder: Path
    config: TrainConfig
    run: RunSettings = RunSettings()
    words: str = ""
    slot: int | None = None


@dataclass(frozen=True)
class Cast:
    """Members in the order of their keys. together: groups of keys that are used in one picture; without any, all are.
    source: the folder or file it was read from.

    Raises CastError for no members, two of one name, a group that names a stranger.
    """

    name: str
    members: tuple[Member, ...]
    together: tuple[tuple[str, ...], ...] = ()
    source: Path | None = None

    def __post_init__(self) -> None:
        if not self.members:
            raise CastError(f"Cast {self.name}: expected folders with pictures, one a concept, got none.")
        counted = Counter(member.concept.bare.lower() for member in self.members)
        if twice := sorted(name for name, count in counted.items() if count > 1):
            keys = [member.key for member in self.members if member.concept.bare.lower() == twice[0]]
            others = f", and so {', '.join(twice[1:5])}" if twice[1:] else ""
            raise CastError(
                f"Cast {self.name}: expected a name of its own for each concept, got {' and '.join(keys[:5])}, all "
                f"called {twice[0]}{others}. Give one of them another `name`."
            )
        strangers = {key for group in self.together for key in group} - {member.key for member in self.members}
        if strangers:
            listed = ", ".join(sorted(strangers)[:5])
            raise CastError(f"Cast {self.name}, key together: expected names of its concepts, got {listed}.")

    @property
    def groups(self) -> tuple[tuple[str, ...], ...]:
        """Keys of those who meet in one picture."""
        return self.together or (tuple(member.key for member in self.members),)
