"""What a study of merges needs to know of a concept."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from PIL import Image

from demo.cast import Picture


class Subject(Protocol):
    """name: the token to teach. prompts: what it is sampled with; {concept} is its name. `art` is a folder."""

    @property
    def name(self) -> str: ...

    @property
    def class_word(self) -> str: ...

    @property
    def prompts(self) -> Sequence[str]: ...

    def training(self, art: Path) -> list[Picture]: ...

    def held_out(self, art: Path) -> list[Image.Image]: ...
