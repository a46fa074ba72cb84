"""web/js against the types of the host's frontend, and linted: tsc and biome, from npm."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from tests.browser.web_tools import HERE, node, web_tools


@pytest.fixture(scope="module")
def tools(repository: Path) -> Path:
    """A folder outside the sources with node_modules, and web/js where the server has it: beside the host's modules."""
    folder = web_tools(repository)
    for served in ("extensions", "scripts"):
        shutil.rmtree(folder / served, ignore_errors=True)
    shutil.copytree(repository / "web" / "js", folder / "extensions" / "blocklora" / "js")
    shutil.copytree(HERE / "scripts", folder / "scripts")
    for name in ("jsconfig.json", "biome.json"):
        shutil.copy(HERE / name, folder)
    return folder


def _run(line: list[str], folder: Path) -> None:
    done = subprocess.run(line, cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_types(tools: Path) -> None:
    _run([*node(), str(tools / "node_modules" / "typescript" / "lib" / "tsc.js"), "-p", "jsconfig.json"], tools)


def test_lint(tools: Path) -> None:
    biome = tools / "node_modules" / "@biomejs" / "biome" / "bin" / "biome"
    _run([*node(), str(biome), "check", "--error-on-warnings", "extensions"], tools)
