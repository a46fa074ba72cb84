"""What the command `plan` costs on that many real folders: nobody trained, then everybody.

`python -m benchmarks.crowd.folders --comfyui PATH --base FILE --work FOLDER [--concepts N] [--architecture NAME]`.
NAME: as the folders of casts call FILE's. The folders, and a ComfyUI of their own, are made below the work folder, and
stay there.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import subprocess
import sys
import time
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from benchmarks.crowd.__main__ import make_cast
from benchmarks.crowd.workers import ROOT, Trial
from blocklora_core.cast.inputs import base_mark, stamp_of
from blocklora_core.cast.journal import FINISHED, NAME, Entry
from blocklora_core.cast.member import Cast
from blocklora_core.cast.planning import Known, plan
from blocklora_core.cast.reading import read_cast
from blocklora_core.concept.concept import BlockLoRA, Concept
from blocklora_core.concept.layer import Layer
from blocklora_core.concept.rows import BY_NAME, Scheme, count
from blocklora_core.files.io import encode

SLOTS, LAYERS = 64, 64
OWN_FILE = 10
"""Every so many concepts have a concept.toml."""
LINKS = 200
"""Names that one LoRA file's bytes are given: systems allow some ten thousand."""


def write_folders(root: Path, number: int) -> None:
    """A picture and a caption each, some a concept.toml; who meets whom in cast.toml."""
    picture = io.BytesIO()
    Image.new("RGB", (1, 1), "red").save(picture, "PNG")
    crowd = make_cast(number, SLOTS)
    for at, member in enumerate(crowd.members):
        folder = root / member.folder
        folder.mkdir(parents=True)
        (folder / "0.png").write_bytes(picture.getvalue())
        (folder / "0.txt").write_text("a photo of a man")
        if at % OWN_FILE == 0:
            (folder / "concept.toml").write_text('class_word = "man"\nsteps = 300\n')
    together = ",\n".join(json.dumps(group) for group in crowd.together)
    (root / "cast.toml").write_text(f"together = [\n{together}\n]\n[train]\nslots = {SLOTS}\n")


def write_trained(cast: Cast, base: Path, name: str, loras: Path) -> None:
    """The journal and the files that a cast leaves which is trained to the end."""
    mark = base_mark(base)
    folder = loras / "blocklora" / "casts" / cast.name / f"{name}-{mark[:8]}"
    folder.mkdir(parents=True)
    lines, original, size = [json.dumps({"cast": str(cast.source)})], folder, 0
    for at, row in enumerate(plan(cast, Known(mark, folder)).rows):
        path = folder / f"{row.member.key}.safetensors"
        if at % LINKS == 0:
            original, size = path, path.write_bytes(_lora(row.member.concept, row.slot or 0, name))
        else:
            path.hardlink_to(original)
        stamp = stamp_of(row.member, mark, row.slot)
        entry = Entry(row.member.concept.name, FINISHED, row.slot, "0" * 64, stamp, path.name, size, 60.0, 2**30)
        lines.append(json.dumps(asdict(entry)))
    (folder / NAME).write_text("\n".join([*lines, ""]))


def _lora(concept: Concept, slot: int, base: str) -> bytes:
    scheme = replace(Scheme(slots=SLOTS), version=BY_NAME)
    rows = scheme.rows(slot, 320)
    layer = Layer(torch.zeros(count(rows), 1), torch.zeros(1, 8), rows, 320)
    names = [f"lora_unet_mid_block_attentions_0_transformer_blocks_{at}_attn1_to_q" for at in range(LAYERS)]
    return encode(BlockLoRA(concept, dict.fromkeys(names, layer), scheme, slot, base), torch.float16)


def planned(trial: Trial, root: Path, what: str) -> dict[str, Any]:
    """One run of the command: seconds and the peak of its memory."""
    line = [sys.executable, "-m", "blocklora_core", "cast", str(root), "plan", "--base", "base.safetensors"]
    line += ["--comfyui", str(trial.folder), "--cpu"]
    started = time.perf_counter()
    with subprocess.Popen(line, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        tail = process.stdout.read().splitlines()[-3:]
        _, status, used = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    seconds = time.perf_counter() - started
    found = {"what": what, "seconds": round(seconds, 1), "MB": used.ru_maxrss // 1024, "exit": process.returncode}
    print(json.dumps({**found, "told": tail}), flush=True)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--concepts", type=int, default=100_000)
    parser.add_argument("--architecture", default="sd15")
    for name in ("comfyui", "base", "work"):
        parser.add_argument(f"--{name}", type=Path, required=True)
    options = parser.parse_args()
    root, trial = options.work / "crowd", Trial(options, "host")
    if not root.is_dir():
        write_folders(root, options.concepts)
    trial.begin()
    few = options.work / "few"
    if not few.is_dir():
        write_folders(few, 16)
    planned(trial, few, "16 concepts: what starting ComfyUI and reading the base takes")
    for turn in ("nobody trained", "the same again"):
        planned(trial, root, turn)
    write_trained(read_cast(root), options.base, options.architecture, trial.folder / "models" / "loras")
    for turn in ("all trained, headers read", "all trained, by the index"):
        planned(trial, root, turn)


if __name__ == "__main__":
    main()
