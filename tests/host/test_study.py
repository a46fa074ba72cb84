"""What a study leaves behind it on the user's machine."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest
from PIL import Image

from benchmarks.identity_study.train import Base, Recipe, Training
from blocklora_core.host import claims
from demo.cast import Picture
from tests.host import tiny


@dataclass(frozen=True)
class Member:
    name: str = "<member>"
    class_word: str = "man"
    prompts: Sequence[str] = ()

    def training(self, _: Path) -> list[Picture]:
        return [(Image.new("RGB", (64, 64), colour), "a man") for colour in ("red", "blue")]

    def held_out(self, _: Path) -> list[Image.Image]:
        return []


@pytest.mark.usefixtures("folders")
def test_a_training_of_a_study_holds_no_slot_once_it_is_kept(base: tiny.Base, tmp_path: Path) -> None:
    recipe = Recipe(fields={"steps": 1, "batch_size": 1, "gram_pictures": 1, "gram_steps": 1})
    training = Training(recipe, Member(), seed=0, slot=3)
    made = training.file(Base(base.model, base.clip, base.vae), tmp_path, tmp_path)
    assert made.slot == 3
    assert list(claims.claims()) == []
