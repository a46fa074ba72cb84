"""The protocol on drawn people is bound to what the code would run."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from benchmarks.people import protocol
from benchmarks.people.arms import ARMS, RECIPES, SETTINGS


def test_the_protocol_is_that_of_the_code(repository: Path) -> None:
    assert protocol.check(repository / "docs" / "protocol.md") == protocol.digest()


def test_another_configuration_is_refused(repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = Path(shutil.copy(repository / "docs" / "protocol.md", tmp_path))
    monkeypatch.setattr(protocol, "MARGIN", 0.5)
    with pytest.raises(protocol.ChangedError, match="may not change once the test is under way"):
        protocol.check(path)
    protocol.write(path)
    assert protocol.check(path) == protocol.digest()


def test_a_text_without_a_place_for_it_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "protocol.md"
    path.write_text("# Nothing", encoding="utf-8")
    with pytest.raises(ValueError, match="expected a line with Configuration"):
        protocol.write(path)
    with pytest.raises(protocol.ChangedError, match="of none"):
        protocol.check(path)


def test_every_arm_searches_as_many_settings_and_trains_by_a_recipe_that_there_is() -> None:
    assert {name: len(arm.settings) for name, arm in ARMS.items()} == dict.fromkeys(ARMS, SETTINGS)
    assert {one.recipe for arm in ARMS.values() for one in arm.settings.values()} == set(RECIPES)
