"""Looks whether a Python has its packages whole. Run by that Python: `python probe.py NAME ...`.

It prints one requirement a line, NAME or NAME==VERSION, for each package that is missing or damaged.
"""

from __future__ import annotations

import csv
import sys
from collections.abc import Iterable
from importlib.metadata import Distribution, PackageNotFoundError, distribution, distributions
from pathlib import Path


def is_whole(found: Distribution) -> bool:
    """Whether every file that the package's RECORD lists is there, and as long as it says."""
    record = found.read_text("RECORD")
    if record is None:
        return False
    for name, _, size in csv.reader(record.splitlines()):
        if name.endswith(".pyc"):
            continue
        file = Path(str(found.locate_file(name)))
        if not file.is_file() or (size and file.stat().st_size != int(size)):
            return False
    return True


def damaged(required: Iterable[str]) -> list[str]:
    """What has to be installed again: required packages that are missing, any package that is not whole."""
    found: list[str] = []
    for name in required:
        try:
            distribution(name)
        except PackageNotFoundError:
            found.append(name)
    # Asked again by name: a removal that was cut short leaves a second, nameless or renamed, entry.
    for name in sorted({d.metadata["Name"] for d in distributions() if d.metadata["Name"]}):
        try:
            installed = distribution(name)
        except PackageNotFoundError:
            continue
        if not is_whole(installed):
            found.append(f"{name}=={installed.version}")
    return found


if __name__ == "__main__":
    print("\n".join(damaged(sys.argv[1:])))
