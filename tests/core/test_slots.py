from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

from blocklora_core.concept.rows import Scheme
from blocklora_core.files.io import save
from blocklora_core.files.slots import describe_tables, owners_of_slots, tables
from tests.core.samples import QUERY, Recipe

RECIPE = Recipe(shapes={QUERY: (320, 4)})


def put(folder: Path, name: str, slot: int, recipe: Recipe = RECIPE) -> Path:
    return save(folder / f"{name}.safetensors", recipe.make(f"<{name}>", slot))


def test_slots_are_counted_over_folders_and_below(tmp_path: Path) -> None:
    put(tmp_path / "x", "a", 0)
    put(tmp_path / "y" / "deep", "b", 2)
    assert owners_of_slots([tmp_path / "x", tmp_path / "y"], "sd15", Scheme()) == {0: {"<a>"}, 2: {"<b>"}}
    assert owners_of_slots(tmp_path, "sd15", Scheme()) == {0: {"<a>"}, 2: {"<b>"}}


def test_an_empty_or_missing_folder_has_every_slot_free(tmp_path: Path) -> None:
    assert owners_of_slots([tmp_path, tmp_path / "missing"], "sd15", Scheme()) == {}


def test_other_bases_plain_loras_and_broken_files_hold_no_slot(tmp_path: Path) -> None:
    put(tmp_path, "a", 0, replace(RECIPE, base="sdxl"))
    put(tmp_path, "b", 0, replace(RECIPE, scheme=None))
    (tmp_path / "c.safetensors").write_bytes(b"broken")
    assert owners_of_slots(tmp_path, "sd15", Scheme()) == {}


def test_a_file_of_another_scheme_takes_every_slot_that_it_overlaps(tmp_path: Path) -> None:
    put(tmp_path, "a", 1, replace(RECIPE, scheme=Scheme(slots=8)))
    assert owners_of_slots(tmp_path, "sd15", Scheme()) == {2: {"<a>"}, 3: {"<a>"}}


def test_tables_tell_who_clashes_and_what_is_free(tmp_path: Path) -> None:
    a, b = put(tmp_path, "a", 1), put(tmp_path / "deep", "b", 1)
    wide = put(tmp_path, "c", 1, replace(RECIPE, scheme=Scheme(slots=8)))
    other = put(tmp_path, "d", 0, replace(RECIPE, base="sdxl"))
    put(tmp_path, "plain", 0, replace(RECIPE, scheme=None))
    eight, sixteen, sdxl = tables(tmp_path)
    assert (eight.base, eight.scheme, eight.held) == ("sd15", Scheme(slots=8), {0: [a, b], 1: [wide]})
    assert (sixteen.scheme, sixteen.held) == (Scheme(), {1: [a, b], 2: [wide], 3: [wide]})
    assert sixteen.clashes == {1: [a, b]}
    assert sixteen.free == [0, *range(4, 16)]
    assert (sdxl.base, sdxl.held, sdxl.clashes) == ("sdxl", {0: [other]}, {})
    assert "slot 1: a.safetensors, b.safetensors  CLASH" in describe_tables([sixteen])


def run(*arguments: str, root: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "blocklora_core", *arguments]
    return subprocess.run(command, cwd=root, capture_output=True, text=True, timeout=120, check=False)


def test_the_command_lists_slots(tmp_path: Path, repository: Path) -> None:
    put(tmp_path, "a", 3)
    done = run("slots", str(tmp_path), root=repository)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("sd15, 16 slots\n  slot 3: a.safetensors\n  free: 0, 1, 2, 4")
    missing = run("slots", str(tmp_path / "nowhere"), root=repository)
    assert missing.returncode == 1
    assert "expected a folder" in missing.stderr
