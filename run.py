#!/usr/bin/env python3
"""Everything from one place: `python run.py demo | test | serve | bench NAME`.

Needs Python 3.10 or newer and nothing else. It keeps what it makes in .comfyui/ beside this file.
"""

from __future__ import annotations

import argparse
import signal
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import FrameType

from launcher.checks import bench, benchmarks, test
from launcher.demo import SAVED, demo
from launcher.environment.host import Host
from launcher.environment.prepare import chosen_comfyui, prepare
from launcher.errors import LauncherError
from launcher.layout import PACK_NAME, Layout
from launcher.own import Own, own
from launcher.server import serve

LAYOUT = Layout(Path(__file__).resolve().parent)
PORT = 8188


def _prepared(options: argparse.Namespace, extra: str | None = None) -> Host:
    return prepare(LAYOUT, chosen_comfyui(options.comfyui), options.python, extra)


def _demo(options: argparse.Namespace, rest: Sequence[str]) -> int:
    if rest:
        raise LauncherError(f"demo: expected none but the options of `run.py demo --help`, got {' '.join(rest)}")
    started = time.monotonic()
    chosen = own(options.base, options.pictures, options.side)
    host = _prepared(options)
    return demo(LAYOUT, host, time.monotonic() - started, chosen)


def _serve(options: argparse.Namespace, rest: Sequence[str]) -> int:
    host = _prepared(options)
    print(f"The demo's graph: Workflows (W) -> {SAVED}. Templates: in the bar at the left -> {PACK_NAME}.", flush=True)
    return serve(host, options.port, LAYOUT.logs / "serve.log", rest, options.browser)


def _test(options: argparse.Namespace, rest: Sequence[str]) -> int:
    return test(LAYOUT, _prepared(options, "dev"), rest)


def _bench(options: argparse.Namespace, rest: Sequence[str]) -> int:
    known = benchmarks(LAYOUT)
    if options.name not in known:
        raise LauncherError(f"there is no benchmark {options.name}; there are: {', '.join(sorted(known)) or 'none'}")
    return bench(LAYOUT, _prepared(options, "bench"), options.name, rest)


COMMANDS: dict[str, tuple[Callable[[argparse.Namespace, Sequence[str]], int], str]] = {
    "demo": (_demo, "train two concepts, merge them and sample, in a real ComfyUI"),
    "test": (_test, "linters, type checker and tests; further arguments go to pytest"),
    "serve": (_serve, "ComfyUI in the browser; further arguments go to ComfyUI"),
    "bench": (_bench, "run benchmarks/NAME.py; further arguments go to it"),
}


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="run.py", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, (_run, summary) in COMMANDS.items():
        # Without abbreviations, an argument meant for pytest or ComfyUI is never taken for one of ours.
        command = commands.add_parser(name, help=summary, description=summary, allow_abbrev=False)
        command.add_argument("--comfyui", type=Path, help="a ComfyUI of your own (also: COMFYUI_PATH)")
        command.add_argument("--python", type=Path, help="the Python of that ComfyUI, if it is not found")
        if name == "demo":
            command.add_argument("--base", type=Path, metavar="CHECKPOINT", help="a checkpoint file of your own")
            command.add_argument("--side", type=int, help=f"pixels that it paints; {Own.side} if not given")
            pictures = "two folders of pictures of your own; after = what they show: photos/ada=woman photos/ben=man"
            command.add_argument("--pictures", nargs="+", default=[], metavar="FOLDER", help=pictures)
        if name == "serve":
            command.add_argument("--port", type=int, default=PORT, help="port, or the next free one")
            command.add_argument("--no-browser", dest="browser", action="store_false", help="do not open a browser")
        if name == "bench":
            command.add_argument("name", metavar="NAME")
    return parser


def _stop(_number: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def main() -> int:
    """Runs one command and returns the exit status."""
    options, rest = _parser().parse_known_args()
    # Ends like Ctrl-C, so that the server is stopped on the way out.
    signal.signal(signal.SIGTERM, _stop)
    try:
        return COMMANDS[options.command][0](options, [part for part in rest if part != "--"])
    except LauncherError as error:
        print(f"\nerror: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\nstopped", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main())
