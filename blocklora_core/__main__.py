"""`python -m blocklora_core`: which slots the files of some folders hold, by their headers; a cast, without a page."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from .files.slots import describe_tables, tables
from .host.cast.command import add_to, run


def main() -> int:
    """Runs one command and returns the exit status: 1 when a folder is missing."""
    parser = argparse.ArgumentParser(prog="python -m blocklora_core", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    slots = commands.add_parser("slots", help="slots, clashes and free slots per base architecture and scheme")
    slots.add_argument("folders", nargs="+", type=Path, metavar="FOLDER")
    add_to(commands)
    options = parser.parse_args()
    return run(options) if options.command == "cast" else _slots(options)


def _slots(options: argparse.Namespace) -> int:
    for folder in options.folders:
        if not folder.is_dir():
            print(f"{folder}: expected a folder, got none. Check the name.", file=sys.stderr)
            return 1
    print(describe_tables(tables(options.folders)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
