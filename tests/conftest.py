"""What all tests share: the repository on the path, and the ComfyUI they run against."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest
from hypothesis import settings

# How long an example takes says more about the machine than about the code.
settings.register_profile("blocklora", deadline=None)
settings.load_profile("blocklora")

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

NO_COMFYUI = (
    "BLOCKLORA_COMFYUI is not set: it names the ComfyUI folder that these tests need. "
    "`python run.py test` makes one and sets it; `pytest tests/core` needs none."
)


def comfyui_folder() -> Path:
    """The ComfyUI to test against; a usage error, never a skip, when there is none."""
    named = os.environ.get("BLOCKLORA_COMFYUI")
    if not named:
        raise pytest.UsageError(NO_COMFYUI)
    folder = Path(named).resolve()
    if not (folder / "main.py").is_file():
        raise pytest.UsageError(f"BLOCKLORA_COMFYUI is {folder}, which holds no main.py")
    return folder


@pytest.fixture(scope="session")
def repository() -> Path:
    """The root of this repository."""
    return ROOT


@pytest.fixture(scope="session")
def comfyui_root() -> Path:
    """The ComfyUI to test against."""
    return comfyui_folder()


# Before xdist's own, which writes the groups down, and after those of the folders within, which are known later.
@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """With xdist's --dist loadgroup a file runs in one worker, and the server's, the longest, come first."""
    if not hasattr(config, "workerinput"):
        return
    for item in items:
        if item.get_closest_marker("xdist_group") is None:
            item.add_marker(pytest.mark.xdist_group(f"{item.path.parent.name}.{item.path.stem}"))
    items.sort(key=lambda item: item.path.parent.name != "server")
