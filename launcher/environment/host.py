"""The ComfyUI that a command works with: ours or the user's."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from ..errors import LauncherError
from ..layout import COMFYUI_VERSION, venv_python
from .pip import isolated

ACCELERATOR = """
import torch, torchvision
mps = getattr(torch.backends, "mps", None)
xpu = getattr(torch, "xpu", None)
print(torch.cuda.is_available() or bool(mps and mps.is_available()) or bool(xpu and xpu.is_available()))
"""
INSIDE = ("venv/bin/python", ".venv/bin/python", "venv/Scripts/python.exe", ".venv/Scripts/python.exe")
# Where comfy-cli expects to find the user's configuration folder.
CONFIGURATION = {"win32": "AppData/Local", "darwin": "Library/Application Support"}
BESIDE = ("python_embeded/python.exe",)


@dataclass(frozen=True)
class Host:
    """A ComfyUI ready to run.

    `python` runs ComfyUI, `tools` has comfy-cli and the linters. `path` lists folders of extra packages for
    `python`. `ours` says that run.py made all of it.
    """

    root: Path
    python: Path
    tools: Path
    cli_home: Path
    ours: bool
    path: tuple[Path, ...] = ()

    def environment(self, extra: Mapping[str, str] | None = None) -> dict[str, str]:
        """Environment variables for a child that runs under `python`."""
        base = isolated() if self.ours else dict(os.environ) | {"PYTHONIOENCODING": "utf-8"}
        if self.path:
            kept = [base["PYTHONPATH"]] if base.get("PYTHONPATH") else []
            base["PYTHONPATH"] = os.pathsep.join([*map(str, self.path), *kept])
        return base | dict(extra or {})

    def cli_environment(self) -> dict[str, str]:
        """Environment variables for comfy-cli: no questions, no tracking, no trace in the user's home."""
        home = str(self.cli_home)
        return isolated() | {
            "HOME": home,
            "USERPROFILE": home,
            "DO_NOT_TRACK": "1",
            "COMFY_NO_TELEMETRY": "1",
            # A knowledge file of one's own keeps comfy-cli from fetching one while a server runs.
            "COMFY_KNOWLEDGE_FILE": str(self.cli_home / "knowledge.json"),
            # The interpreter that `comfy launch` gives to ComfyUI.
            "VIRTUAL_ENV": str(self.python.parent.parent),
        }

    def cli(self, *arguments: str) -> list[str]:
        """The command line of a comfy-cli call."""
        (self.cli_home / CONFIGURATION.get(sys.platform, ".config")).mkdir(parents=True, exist_ok=True)
        return [str(self.tools), "-m", "comfy_cli", "--skip-prompt", "--where", "local", *arguments]


@cache
def has_accelerator(host: Host) -> bool:
    """Whether the host's torch sees a GPU. It imports torch, which takes a few seconds, once.

    LauncherError if torch cannot be imported.
    """
    line = [str(host.python), "-c", ACCELERATOR]
    done = subprocess.run(line, capture_output=True, text=True, env=host.environment(), check=False)
    if done.returncode != 0:
        raise LauncherError(f"{host.python} cannot import torch and torchvision:\n{done.stderr[-2000:]}")
    return done.stdout.split()[-1] == "True"


def can_import(python: Path, modules: Iterable[str]) -> bool:
    """Whether `python` runs and finds the modules and their metadata; none is imported, so it is quick."""
    code = (
        "import sys, importlib.metadata as m, importlib.util as u\n"
        "missing = [n for n in sys.argv[1:] if u.find_spec(n) is None or not m.version(n)]\n"
        "sys.exit(bool(missing))"
    )
    try:
        done = subprocess.run(
            [str(python), "-c", code, *modules], capture_output=True, env=isolated(), timeout=60, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return False
    return done.returncode == 0


def damaged(python: Path, required: Iterable[str]) -> list[str]:
    """The packages of `python` that are missing or not whole, as requirements: see probe.py."""
    line = [str(python), str(Path(__file__).with_name("probe.py")), *required]
    done = subprocess.run(line, capture_output=True, text=True, env=isolated(), check=False)
    if done.returncode != 0:
        raise LauncherError(f"{python} could not list its packages:\n{done.stderr[-2000:]}")
    return done.stdout.split()


def package_name(requirement: str) -> str:
    """`comfy-cli` of `comfy-cli>=1.23,<2`."""
    return re.split(r"[\s<>=!~;\[(@]", requirement.strip(), maxsplit=1)[0]


def comfyui_version(root: Path) -> str:
    """The version that a ComfyUI folder states of itself; LauncherError if it is no ComfyUI."""
    if not (root / "main.py").is_file() or not (root / "comfy").is_dir():
        raise LauncherError(
            f"{root} is not a ComfyUI folder: main.py and comfy/ are expected in it. "
            "Give the folder that holds ComfyUI's main.py, with --comfyui PATH or COMFYUI_PATH."
        )
    stated = root / "comfyui_version.py"
    text = stated.read_text(encoding="utf-8") if stated.is_file() else ""
    found = re.search(r'__version__\s*=\s*"([^"]+)"', text)
    return found.group(1) if found else "0"


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(number) for number in re.findall(r"\d+", version)[:3])


def require_version(root: Path) -> None:
    """Raises LauncherError when the ComfyUI is older than the pack supports."""
    version = comfyui_version(root)
    if _numbers(version) < _numbers(COMFYUI_VERSION):
        raise LauncherError(f"{root} is ComfyUI {version}; {COMFYUI_VERSION} or newer is needed. Update it.")


def find_python(root: Path, given: Path | None, current: Path, fallback: Path | None = None) -> Path:
    """The interpreter of a user's ComfyUI: the given one, its own, the embedded one, or the current one.

    fallback: in place of one that was not given and cannot run ComfyUI. LauncherError if there is none.
    """
    candidates = [given] if given else [root / p for p in INSIDE] + [root.parent / p for p in BESIDE]
    found = next((path for path in candidates if path.is_file()), None)
    python = found or (current if given is None else None)
    if python is None or not can_import(python, ("torch", "safetensors", "aiohttp")):
        if fallback is not None and given is None:
            return fallback
        raise LauncherError(
            f"No Python that can run {root} was found. Tried: {', '.join(map(str, candidates))}, {current}. "
            "It must have torch, safetensors and aiohttp. Name it with --python PATH."
        )
    return python


def own_host(root: Path, venv: Path, cli_home: Path) -> Host:
    """The host that run.py makes for itself."""
    python = venv_python(venv)
    return Host(root=root, python=python, tools=python, cli_home=cli_home, ours=True)
