"""The demo's people and their training pictures, which people/sitters.py drew."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

PICTURES = Path(__file__).parent / "pictures"


@dataclass(frozen=True)
class DemoConcept:
    """A person: the name to teach, the class word, the folder of the pictures, and the base's word for how it is drawn.

    Captions have that word, and prompts need it.
    """

    name: str
    class_word: str
    folder: str
    style: str

    def pictures(self) -> Iterator[tuple[Image.Image, str]]:
        """Every training picture, 128 x 128, and its caption."""
        for path in sorted((PICTURES / self.folder).glob("*.png")):
            with Image.open(path) as picture:
                yield picture.convert("RGB"), path.with_suffix(".txt").read_text(encoding="utf-8").strip()

    def write(self, folder: Path) -> int:
        """Put pictures and caption files in the place of the folder; returns how many pictures."""
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(PICTURES / self.folder, folder)
        return len(list(folder.glob("*.png")))


CONCEPTS = (
    DemoConcept("<amelia>", "woman", "amelia", "personas"),
    DemoConcept("<zed>", "man", "zed", "personas"),
    DemoConcept("<felix>", "man", "felix", "micah"),
    DemoConcept("<nora>", "woman", "nora", "miniavs"),
    DemoConcept("<omar>", "man", "omar", "personas"),
    DemoConcept("<rivet>", "man", "rivet", "miniavs"),
)
