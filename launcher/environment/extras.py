"""Reads the lists of optional packages out of pyproject.toml."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

from ..errors import LauncherError

# Runs in an interpreter that has pip: Python 3.10 has no TOML parser but for the one pip carries.
READER = """
import json, sys
try:
    import tomllib
except ModuleNotFoundError:
    from pip._vendor import tomli as tomllib
with open(sys.argv[1], "rb") as file:
    print(json.dumps(tomllib.load(file)["project"]["optional-dependencies"]))
"""


def read_extra(pyproject: Path, name: str, python: Path) -> tuple[str, ...]:
    """The requirements of one extra of `pyproject`, read by `python`; LauncherError if there is none."""
    done = subprocess.run([str(python), "-c", READER, str(pyproject)], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise LauncherError(f"{pyproject} could not be read:\n{done.stderr}")
    extras: dict[str, list[str]] = json.loads(done.stdout)
    if name not in extras:
        raise LauncherError(f"{pyproject} has no extra named {name}; it has {', '.join(sorted(extras))}")
    return tuple(extras[name])
