"""`python -m launcher.shipped URL` writes them, asking the ComfyUI at URL what its nodes are."""

from __future__ import annotations

import sys
from pathlib import Path

from ..server import ask
from .files import files

ROOT = Path(__file__).resolve().parents[2]


def main(url: str) -> None:
    for name, text in files(ask(f"{url}/object_info")).items():
        path = ROOT / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8", newline="\n")
        print(name)


if __name__ == "__main__":
    main(*sys.argv[1:])
