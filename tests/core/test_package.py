"""What the registry shows and takes: links, signs, what the zip holds."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest
from PIL import Image

from tests.conftest import ROOT

if sys.version_info >= (3, 11):
    import tomllib
else:
    tomllib = pytest.importorskip("tomli")

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
REPOSITORY = PROJECT["project"]["urls"]["Repository"]
LINK = re.compile(r"\]\(([^)\s]+)\)")


def local(url: str) -> Path:
    """The file of this clone that a link to the repository means."""
    found = re.fullmatch(rf"{re.escape(REPOSITORY)}/(?:raw|blob)/main/([^#]+)(?:#.*)?", url)
    assert found, url
    return ROOT / found[1]


def test_links_of_the_readme_hold_wherever_it_is_shown() -> None:
    """The registry shows it without the files beside it."""
    links = LINK.findall((ROOT / "README.md").read_text(encoding="utf-8"))
    assert links
    for link in links:
        assert link.startswith("https://"), link
        assert not link.startswith(REPOSITORY) or local(link).is_file(), link


@pytest.mark.parametrize(("sign", "ratio"), [("Icon", 1), ("Banner", 21 / 9)])
def test_signs_are_there_and_small(sign: str, ratio: float) -> None:
    path = local(PROJECT["tool"]["comfy"][sign])
    with Image.open(path) as picture:
        assert abs(picture.width / picture.height - ratio) < 0.01
    assert path.stat().st_size < 60_000


def test_versions_agree() -> None:
    versions = re.findall(r"^## \[([\d.]+)\]", (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert PROJECT["project"]["version"] in versions[:2]
