"""`run.py demo`: starts ComfyUI, runs the bundled workflow, says where everything is."""

from __future__ import annotations

import json
import time
from pathlib import Path

from .environment.host import Host
from .layout import Layout
from .own import TRAIN, Own, settings_of
from .server import Server, running
from .terminal import seconds
from .workflow import Picture, Run, pictures, run, to_api

WORKFLOW = Path("demo") / "workflows" / "train_merge_sample.json"
SAVED = "BlockLoRA demo"
"""What it is called among the workflows that ComfyUI has saved."""

Snapshot = dict[Path, tuple[int, int]]


def snapshot(folder: Path) -> Snapshot:
    """Size and modification time of each .safetensors below the folder."""
    states = ((path, path.stat()) for path in folder.rglob("*.safetensors"))
    return {path: (state.st_size, state.st_mtime_ns) for path, state in states}


def changed_since(before: Snapshot, folder: Path) -> list[Path]:
    """The files below the folder that are new or different."""
    return sorted(path for path, state in snapshot(folder).items() if before.get(path) != state)


def _print_files(title: str, paths: list[Path]) -> None:
    print(f"\n{title}")
    for path in paths:
        print(f"  {path}")
    if not paths:
        print("  (none)")


def _print_times(times: list[tuple[str, float]]) -> None:
    print("\nTime")
    width = max(len(name) for name, _ in times)
    for name, taken in times:
        print(f"  {name:<{width}}  {seconds(taken):>12}")


def _report(host: Host, found: list[Picture], trained: list[Path], times: list[tuple[str, float]]) -> None:
    saved = [picture.path(host.root / "output") for picture in found if picture.kind == "output"]
    _print_files("Pictures", saved)
    _print_files("Trained files", trained)
    _print_times(times)
    print(f"\nTo open the same graph in the browser: python run.py serve, then Workflows (W) -> {SAVED}")


def _workflow(layout: Layout, server: Server, own: Own) -> Path:
    """The bundled workflow, or what becomes of it with the user's own."""
    bundled = layout.root / WORKFLOW
    if own == Own():
        return bundled
    own.copy_pictures(server.host.root / "input")
    settings = settings_of(server.get(f"/object_info/{TRAIN}")[TRAIN])
    target = layout.home / "own_workflow.json"
    target.write_text(json.dumps(own.graph(to_api(server, bundled), settings), indent=1), "utf-8")
    return target


def demo(layout: Layout, host: Host, prepared: float, own: Own) -> int:
    """Runs the bundled workflow on `host`, with the user's own checkpoint and pictures in it, if there are any.

    `prepared` is how long the environment took, in seconds.

    Raises LauncherError with the node's error when the prompt fails.
    """
    loras = host.root / "models" / "loras"
    before = snapshot(loras)
    log = layout.logs / f"demo-{time.strftime('%Y%m%d-%H%M%S')}.log"
    started = time.monotonic()
    with running(host, log, own.server_arguments(layout.home)) as server:
        ready = time.monotonic() - started
        print(f"running {WORKFLOW.as_posix()} on {server.url}")
        finished: Run = run(server, _workflow(layout, server, own))
        found = pictures(server, finished.prompt_id)
    times = [("environment", prepared), ("ComfyUI start", ready), *finished.node_seconds]
    total = prepared + time.monotonic() - started
    _report(host, found, changed_since(before, loras), [*times, ("total", total)])
    return 0
