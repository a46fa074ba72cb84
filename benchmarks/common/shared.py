"""What benchmarks share: ComfyUI on the path and on the CPU, interleaved timing, the last line."""

from __future__ import annotations

import gc
import json
import logging
import os
import platform
import re
import statistics
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

Result = TypeVar("Result")
SLOW = 5.0
"""Seconds of a side in which what warming up saves does not show."""
ROOT = Path(__file__).resolve().parents[2]


def import_comfyui(gpu: bool = False) -> None:
    """Put the ComfyUI that BLOCKLORA_COMFYUI names, and this repository, on the path.

    Its device is the CPU; with `gpu` the GPU where there is one.
    """
    named = os.environ.get("BLOCKLORA_COMFYUI")
    if not named or not Path(named, "main.py").is_file():
        sys.exit(f"BLOCKLORA_COMFYUI must name a ComfyUI folder, got {named!r}. Use `python run.py bench NAME`.")
    sys.path[:0] = [named, str(ROOT)]
    from comfy.cli_args import args

    # The device is chosen when comfy.model_management is imported, so this comes first.
    args.cpu = not (gpu and _has_cuda())
    logging.getLogger().setLevel(logging.ERROR)


def _has_cuda() -> bool:
    import torch

    return torch.cuda.is_available()


def say(text: str) -> None:
    """A progress line."""
    print(text, flush=True)


def interleaved(sides: Mapping[str, Callable[[], float]], repeats: int) -> dict[str, list[float]]:
    """Every side once a round, in turn, so that a slow spell of the machine hits them all.

    A side returns its own seconds: what it prepares and tidies up does not count. The first round only warms up, but
    for sides that take longer than SLOW, whose first round counts. As in timeit, garbage is collected between the sides
    and not while one runs.
    """
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    for number in range(repeats + 1):
        for name in [name for name, counted in seconds.items() if len(counted) < repeats]:
            taken = uncollected(sides[name])
            counts = number > 0 or taken > SLOW
            if counts:
                seconds[name].append(taken)
            say(f"round {number}/{repeats}{'' if counts else ' (warm-up)'}: {name} {taken:.3f} s")
    return seconds


def uncollected(side: Callable[[], Result]) -> Result:
    """What `side` returns; garbage is collected before it and not while it runs."""
    gc.collect()
    gc.disable()
    try:
        return side()
    finally:
        gc.enable()


def medians(seconds: Mapping[str, list[float]]) -> dict[str, float]:
    """Side -> median of its seconds."""
    return {name: statistics.median(taken) for name, taken in seconds.items()}


def resident_memory() -> int:
    """Bytes of memory this process takes now."""
    import psutil

    return psutil.Process().memory_info().rss


def peak_memory() -> int:
    """Bytes of memory this process has taken at most."""
    status = Path("/proc/self/status")
    if status.is_file():
        # Not getrusage: a new process starts with its parent's peak there.
        return int(status.read_text().split("VmHWM:")[1].split()[0]) * 1024
    if sys.platform == "win32":
        import psutil

        return psutil.Process().memory_info().peak_wset
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


class Stopwatch:
    """Seconds since it was made."""

    def __init__(self) -> None:
        self.started = time.perf_counter()

    def seconds(self) -> float:
        return time.perf_counter() - self.started


def _device() -> str:
    """The GPU's name when ComfyUI was told to use it, else cpu."""
    import torch
    from comfy.cli_args import args

    return "cpu" if args.cpu else torch.cuda.get_device_name()


def machine() -> dict[str, Any]:
    """What the figures were measured with."""
    import torch

    return {
        "torch": torch.__version__,
        "threads": torch.get_num_threads(),
        "cpus": os.cpu_count(),
        "device": _device(),
        "machine": platform.machine(),
        "python": platform.python_version(),
    }


def write_json(path: Path, found: Mapping[str, Any]) -> None:
    """Indented, but a list of numbers or words in one line."""
    text = json.dumps(found, indent=1)
    flat = re.sub(r"\[[^\[\]{}]*\]", lambda inner: re.sub(r"\s*\n\s*", " ", inner[0]), text)
    path.write_text(flat.replace("[ ", "[").replace(" ]", "]") + "\n", encoding="utf-8")


def finish(result: Mapping[str, Any]) -> None:
    """Print the result with the machine's facts as the last line."""
    # Four decimals, or two digits where that would leave nothing.
    rounded = {
        name: (round(value, 4) or float(f"{value:.2g}")) if isinstance(value, float) else value
        for name, value in result.items()
    }
    print(json.dumps({**rounded, **machine()}), flush=True)
