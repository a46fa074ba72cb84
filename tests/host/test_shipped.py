"""Templates, subgraphs and translations against the nodes of this ComfyUI: the same files fit every version."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from launcher.shipped.files import files
from launcher.shipped.locales import LANGUAGES, needed, ours, words
from tests.host.object_info import object_info

HOW = "`python -m launcher.shipped URL`, with the address of a running ComfyUI, writes these files."


@pytest.fixture(scope="module")
def info(pack: ModuleType) -> dict[str, Any]:
    return object_info(pack)


def test_the_files_are_what_the_tables_say(info: dict[str, Any], repository: Path) -> None:
    made = files(info)
    differ = [
        name
        for name, text in made.items()
        if not (repository / name).is_file() or (repository / name).read_text("utf-8") != text
    ]
    assert differ == [], HOW
    kept = {path.relative_to(repository).as_posix() for path in (repository / "locales").rglob("*.json")}
    assert kept == {name for name in made if name.startswith("locales/")}


@pytest.mark.parametrize("language", LANGUAGES)
def test_every_text_is_translated_and_no_translation_is_left_over(info: dict[str, Any], language: str) -> None:
    """What to do: words/<language>.json holds English text -> translation."""
    table, texts = words(language), needed(info)
    assert sorted(texts - table.keys()) == [], "not translated"
    assert sorted(table.keys() - texts) == [], "nobody says this any more"
    assert [text for text, told in table.items() if not told.strip()] == []


@pytest.mark.parametrize("language", LANGUAGES)
def test_a_translation_keeps_what_people_type(language: str) -> None:
    """Placeholders and names of files stay as they are."""
    kept = ("{concept}", "{scene}", "<hero>", "<zed>", "zed.safetensors", "10_name")
    for text, told in words(language).items():
        assert [word for word in kept if word in text and word not in told] == [], text


def test_every_node_stands_in_a_room_of_the_menu(info: dict[str, Any]) -> None:
    rooms = {told["category"] for told in ours(info).values()}
    assert rooms == {"BlockLoRA/Train", "BlockLoRA/Use", "BlockLoRA/Regions", "BlockLoRA/Study"}
