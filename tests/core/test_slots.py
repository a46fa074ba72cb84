from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from blocklora_core.files import save
from blocklora_core.rows import Scheme
from blocklora_core.slots import occupied_slots
from tests.core.samples import QUERY, Recipe

RECIPE = Recipe(shapes={QUERY: (320, 4)})


def put(folder: Path, name: str, slot: int, recipe: Recipe = RECIPE) -> Path:
    return save(folder / f"{name}.safetensors", recipe.make(f"<{name}>", slot))


def test_slots_are_counted_over_folders_and_below(tmp_path: Path) -> None:
    one, two = put(tmp_path / "x", "a", 0), put(tmp_path / "y" / "deep", "b", 2)
    assert occupied_slots([tmp_path / "x", tmp_path / "y"], "sd15", Scheme()) == {0: [one], 2: [two]}
    assert occupied_slots(tmp_path, "sd15", Scheme()) == {0: [one], 2: [two]}


def test_an_empty_or_missing_folder_has_every_slot_free(tmp_path: Path) -> None:
    assert occupied_slots([tmp_path, tmp_path / "missing"], "sd15", Scheme()) == {}


def test_other_bases_plain_loras_and_broken_files_hold_no_slot(tmp_path: Path) -> None:
    put(tmp_path, "a", 0, replace(RECIPE, base="sdxl"))
    put(tmp_path, "b", 0, replace(RECIPE, scheme=None))
    (tmp_path / "c.safetensors").write_bytes(b"broken")
    assert occupied_slots(tmp_path, "sd15", Scheme()) == {}


def test_a_file_of_another_scheme_takes_every_slot_that_it_overlaps(tmp_path: Path) -> None:
    path = put(tmp_path, "a", 1, replace(RECIPE, scheme=Scheme(slots=8)))
    assert occupied_slots(tmp_path, "sd15", Scheme()) == {2: [path], 3: [path]}


def test_a_file_of_another_layout_may_take_all(tmp_path: Path) -> None:
    put(tmp_path, "a", 1, replace(RECIPE, scheme=Scheme(layout="interleaved")))
    assert list(occupied_slots(tmp_path, "sd15", Scheme())) == list(range(16))
