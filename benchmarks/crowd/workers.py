"""Whether a cast is the same, byte by byte, however it is trained: in turn, by Ray's workers, with workers that are
killed or have no memory, with a driver that is killed.

`python -m benchmarks.crowd.workers CAST --comfyui PATH --base FILE --work FOLDER [--parts PART ...]`, with Ray.
Parts: turn, cluster, killed, starved, driver, stopped (Ctrl-C), stopped_turn (the same without Ray), twice (a second
driver beside the first). Each has a ComfyUI of its own below the work folder, the given one
with other models; a part that is there already is not run again, but compared. The last line is one JSON object.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import psutil

from benchmarks.crowd.hooks import FAULTS

ROOT = Path(__file__).resolve().parents[2]
OWN = {"folder_paths.py", "models", "input", "output", "user", "temp", "custom_nodes", "extra_model_paths.yaml"}
"""Of ComfyUI's folder: what another one cannot share."""
WORKERS = 2
TITLES = {f"ray::{worker.__name__}" for worker in FAULTS.values()}
MID = 3
"""Steps that a training has made when its worker is killed."""


class Trial:
    """One part: a ComfyUI of its own, and the cast's command in it."""

    def __init__(self, options: argparse.Namespace, name: str):
        self.options, self.name, self.folder = options, name, options.work / name
        self.log = options.work / f"{name}.log"

    def begin(self) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)
        self.folder.mkdir(parents=True)
        for one in self.options.comfyui.iterdir():
            if one.name not in OWN:
                (self.folder / one.name).symlink_to(one)
        shutil.copy(self.options.comfyui / "folder_paths.py", self.folder)
        (self.folder / "models" / "checkpoints").mkdir(parents=True)
        (self.folder / "models" / "loras").mkdir(parents=True)
        (self.folder / "models" / "checkpoints" / "base.safetensors").symlink_to(self.options.base.resolve())
        self.log.unlink(missing_ok=True)

    def start(self, fault: str = "none", cluster: bool = True) -> subprocess.Popen[bytes]:
        line = [sys.executable, "-m", "benchmarks.crowd.hooks", fault, "cast", str(self.options.cast), "train"]
        line += ["--base", "base.safetensors", "--comfyui", str(self.folder), "--cpu"]
        line += ["--cluster", "auto", "--workers", str(WORKERS)] if cluster else []
        with self.log.open("ab") as log:
            # A session of its own, whose processes Ctrl-C reaches as a terminal's.
            return subprocess.Popen(line, cwd=ROOT, stdout=log, stderr=log, start_new_session=True)

    def go(self, fault: str = "none", cluster: bool = True) -> int:
        return self.start(fault, cluster).wait()

    def wait_for(self, process: subprocess.Popen[bytes], is_there: Callable[[str], bool]) -> None:
        while process.poll() is None and not is_there(self.log.read_text(errors="replace")):
            time.sleep(0.2)

    def files(self) -> dict[str, str]:
        found = self.folder.rglob("models/loras/blocklora/casts/**/*.safetensors")
        return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(found)}

    def entries(self) -> list[dict[str, Any]]:
        (journal,) = self.folder.rglob("models/loras/blocklora/casts/**/cast.jsonl")
        return [json.loads(line) for line in journal.read_text(encoding="utf-8").splitlines()]


def in_mid_training(text: str) -> bool:
    """Whether the log's last word is of a training that is under way."""
    last = (text.strip().splitlines() or [""])[-1].split()
    return len(last) == 4 and last[2] == "of" and int(last[1]) >= MID


def workers_of(process: subprocess.Popen[bytes]) -> Iterator[psutil.Process]:
    """Ray's workers below our driver that are at work."""
    for one in psutil.Process(process.pid).children(recursive=True):
        try:
            if one.cmdline() and one.cmdline()[0].split(".")[0] in TITLES:
                yield one
        except psutil.Error:
            continue


def turn(trial: Trial) -> dict[str, Any]:
    return {"exit": trial.go(cluster=False)}


def cluster(trial: Trial) -> dict[str, Any]:
    return {"exit": trial.go()}


def killed(trial: Trial) -> dict[str, Any]:
    process = trial.start("kept")
    trial.wait_for(process, in_mid_training)
    # The one that was last heard of; the driver finds another.
    victim = next(workers_of(process))
    victim.kill()
    code = process.wait()
    # A training that went on from a state does not say how long it took.
    resumed = [
        entry["concept"] for entry in trial.entries() if entry.get("event") == "finished" and "seconds" not in entry
    ]
    return {"exit": code, "killed": victim.pid, "went on from a state": resumed}


def starved(trial: Trial) -> dict[str, Any]:
    first = trial.go("starved")
    failed = {entry["concept"]: entry["error"] for entry in trial.entries() if entry.get("event") == "failed"}
    return {"first exit": first, "failed": failed, "finished": len(trial.files()), "exit": trial.go()}


def driver(trial: Trial) -> dict[str, Any]:
    return ended(trial, signal.SIGKILL, cluster=True)


def stopped(trial: Trial) -> dict[str, Any]:
    return ended(trial, signal.SIGINT, cluster=True)


def stopped_turn(trial: Trial) -> dict[str, Any]:
    return ended(trial, signal.SIGINT, cluster=False)


def ended(trial: Trial, how: signal.Signals, cluster: bool) -> dict[str, Any]:
    """Told to end in the third training, and started again. Ctrl-C goes to all of a terminal's processes."""
    process = trial.start("kept", cluster)
    trial.wait_for(process, lambda text: text.count(" finished in ") >= 2 and in_mid_training(text))
    left = psutil.Process(process.pid).children(recursive=True)
    started = time.perf_counter()
    os.killpg(process.pid, how) if how == signal.SIGINT else process.send_signal(how)
    first = process.wait()
    took = time.perf_counter() - started
    _, alive = psutil.wait_procs(left, timeout=60)
    # Dead ones that nobody asks for stay in the list.
    alive = [one for one in alive if one.is_running() and one.status() != psutil.STATUS_ZOMBIE]
    before, states = trial.files(), len([*trial.folder.rglob("*.state")])
    last = trial.log.read_text(errors="replace").strip().splitlines()[-1]
    code = trial.go(cluster=cluster)
    again = [entry["concept"] for entry in trial.entries() if entry.get("event") == "finished"]
    return {
        "first exit": first,
        "ended within": round(took, 1),
        "last line": last,
        "exit": code,
        "processes left": len(alive),
        "states": states,
        "finished before": len(before),
        "trained twice": sorted({one for one in again if again.count(one) > 1}),
    }


def twice(trial: Trial) -> dict[str, Any]:
    process = trial.start(cluster=False)
    trial.wait_for(process, in_mid_training)
    second = Trial(trial.options, trial.name)
    second.log = trial.log.with_suffix(".second.log")
    refused = second.go(cluster=False)
    last = second.log.read_text(errors="replace").strip().splitlines()[-1]
    return {"second exit": refused, "second's last line": last, "exit": process.wait()}


PARTS: Mapping[str, Callable[[Trial], dict[str, Any]]] = {
    "turn": turn,
    "cluster": cluster,
    "killed": killed,
    "starved": starved,
    "driver": driver,
    "stopped": stopped,
    "stopped_turn": stopped_turn,
    "twice": twice,
}


def run(trial: Trial, part: Callable[[Trial], dict[str, Any]]) -> dict[str, Any]:
    kept = trial.folder / "found.json"
    if kept.is_file():
        return dict(json.loads(kept.read_text(encoding="utf-8")))
    trial.begin()
    started = time.perf_counter()
    found = part(trial)
    found = {"seconds": round(time.perf_counter() - started, 1), **found, "files": trial.files()}
    kept.write_text(json.dumps(found), encoding="utf-8")
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("cast", type=Path)
    parser.add_argument("--parts", nargs="+", choices=[*PARTS], default=[*PARTS])
    for name in ("comfyui", "base", "work"):
        parser.add_argument(f"--{name}", type=Path, required=True)
    options = parser.parse_args()
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    # A shell's background jobs do not hear Ctrl-C, and hand that on.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    found = {name: run(Trial(options, name), PARTS[name]) for name in options.parts}
    first = next(iter(found.values()))["files"]
    for name, one in found.items():
        print(name, {key: value for key, value in one.items() if key != "files"})
        one["equal"] = len(one["files"]) > 1 and one.pop("files") == first
    print(json.dumps(found))


if __name__ == "__main__":
    main()
