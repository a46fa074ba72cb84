"""What the tests of a running server share: the host to start, and the demo in it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from launcher.environment.host import Host
from launcher.layout import Layout

CHECKPOINT = "blocklora_demo.safetensors"


def host_of(comfyui_root: Path, repository: Path) -> Host:
    """The ComfyUI under test, run by the Python that runs the tests."""
    tools = Path(os.environ.get("BLOCKLORA_TOOLS") or sys.executable)
    ours = bool(os.environ.get("BLOCKLORA_OURS"))
    return Host(comfyui_root, Path(sys.executable), tools, Layout(repository).cli_home, ours)


def put_demo(comfyui_root: Path, repository: Path) -> Path:
    """The demo's base checkpoint; it and the training pictures are put there unless they are there already."""
    line = [sys.executable, str(repository / "demo" / "prepare.py"), "--comfyui", str(comfyui_root)]
    done = subprocess.run(line, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return comfyui_root / "models" / "checkpoints" / CHECKPOINT
