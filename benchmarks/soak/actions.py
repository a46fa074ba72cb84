"""What users do and what happens to them. Each action says what it found: Fault, Lost, or an error nobody expected."""

from __future__ import annotations

import re
import signal
import struct
from collections.abc import Callable, Mapping
from pathlib import Path

import safetensors.torch
import torch

from . import graphs
from .world import Fault, Lost, NodeError, World

FOLDERS = ("blocklora_demo/amelia", "blocklora_demo/zed")
METHODS = ("auto", "per_row", "fused", "ties", "knots", "task_sum")
STEPS = 20
"""Of a training that is broken off."""

MOST_FILES = 12
"""Concepts that are kept; older ones are deleted."""

GONE = re.compile(r"expected (?:one of the loras folder|a file)|value_not_in_list")
STEM = "lora_unet_output_blocks_1_1_transformer_blocks_0_attn1_to_q"


def _training(world: World, steps: int) -> graphs.Graph:
    files = sorted(world.kept, key=lambda path: path.stat().st_mtime)
    for path in files[: max(0, len(files) - MOST_FILES)]:
        world.delete(path)
    return graphs.train(world.new_name(), world.rng.choice(FOLDERS), steps, world.rng.randrange(1000))


def _keep_saved(world: World, told: str) -> None:
    """What Save told. Lost when it told nothing."""
    paths = [Path(line) for line in told.splitlines() if line.endswith(".safetensors") and line.startswith("/")]
    if not paths:
        raise Lost(f"no file was told as saved: {told[-300:]!r}")
    for path in paths:
        world.keep(path)


def train(world: World) -> None:
    _keep_saved(world, world.run(_training(world, world.rng.randint(2, 8))))


def _resume(world: World, graph: graphs.Graph, reached: int) -> None:
    told = world.run(graph)
    found = re.search(r"Resumed after step (\d+)", told)
    # A run that had made its last step has only its Grams to collect.
    resumed = int(found[1]) if found else reached if "an earlier run of the very same inputs" in told else 0
    if resumed < reached:
        raise Lost(f"{reached} steps were made, {resumed} of them were left")
    _keep_saved(world, told)


def cancel(world: World) -> None:
    """Cancelled half-way, then run again: it goes on, and what was learnt is a LoRA as well."""
    graph = _training(world, STEPS)
    prompt, reached = _half_way(world, graph)
    world.server.post("/interrupt", {})
    try:
        world.outcome(prompt)
        raise Fault("a cancelled training went on")
    except NodeError as error:
        if error.kind != "execution_interrupted":
            raise
    name = graph["3"]["inputs"]["concept"].strip("<>")
    saved = list(world.disk.rglob(f"{name}_step*.safetensors"))
    if not saved:
        raise Lost(f"no LoRA of the cancelled training of {name}")
    _resume(world, graph, reached)
    for path in saved:
        path.unlink(missing_ok=True)


def _half_way(world: World, graph: graphs.Graph) -> tuple[str, int]:
    """The prompt of a training, somewhere in its first half, and the step that it has reached."""
    prompt = world.submit(graph)
    if not world.reach(prompt, world.rng.randint(1, STEPS // 2)):
        raise Fault(f"a training of {STEPS} steps ended early: {world.outcome(prompt)[-300:]}")
    return prompt, world.watch.step


def _ended_by(world: World, number: int) -> tuple[graphs.Graph, int]:
    graph = _training(world, STEPS)
    _, reached = _half_way(world, graph)
    world.end(number)
    if left := world.leftovers():
        raise Fault(f"not swept at start: {', '.join(path.name for path in left)}")
    return graph, reached


def terminate(world: World) -> None:
    """SIGTERM or Ctrl-C while it trains, another server, and the same again: it goes on where it was."""
    _resume(world, *_ended_by(world, world.rng.choice((signal.SIGTERM, signal.SIGINT))))


def kill(world: World) -> None:
    """kill -9 while it trains: what was saved is whole, and the training runs again."""
    graph, _ = _ended_by(world, signal.SIGKILL)
    _resume(world, graph, 0)


def full_disk(world: World) -> None:
    """Cancelled with no room left: the node says so, and with room again it goes on."""
    graph = _training(world, STEPS)
    with world.full():
        prompt, reached = _half_way(world, graph)
        world.server.post("/interrupt", {})
        try:
            world.outcome(prompt)
            raise Fault("a cancelled training went on")
        except NodeError as error:
            if "Make room on the disk" not in error.text:
                raise Fault(f"a full disk was not told in the node: {error}") from error
    if left := world.leftovers():
        raise Fault(f"left on the full disk: {', '.join(path.name for path in left)}")
    _resume(world, graph, reached)


def merge(world: World) -> None:
    if files := world.choice(4):
        world.run(graphs.merge([*map(world.name_of, files)], world.rng.choice(METHODS), world.rng.randrange(1000)))


def region(world: World) -> None:
    if files := world.choice(3):
        world.run(graphs.regions([*map(world.name_of, files)], world.rng.randrange(1000)))


def export(world: World) -> None:
    if files := world.choice(3):
        told = world.run(graphs.export([*map(world.name_of, files)], f"export/e{world.rng.randrange(3)}"))
        names = re.findall(r"written as one LoRA: (\S+)", told)
        world.keep(world.loras / "export" / names[0])


def delete(world: World) -> None:
    """A file goes while a merge of it waits."""
    files = world.choice(4)
    if not files:
        return
    prompt = world.submit(graphs.merge([*map(world.name_of, files)], "auto", world.rng.randrange(1000)))
    world.delete(files[0])
    try:
        world.outcome(prompt)
    except NodeError as error:
        if not GONE.search(str(error)):
            raise
    world.run(graphs.slots())


def damage(world: World) -> None:
    """A file that is cut or garbled: Slots names it, loading it is refused by name, the others work."""
    files = world.choice(3)
    if not files:
        return
    data = bytearray(files[0].read_bytes())
    bad = world.loras / "damaged.safetensors"
    if world.rng.random() < 0.5:
        bad.write_bytes(data[: world.rng.randrange(len(data))])
    else:
        struct.pack_into("<Q", data, 0, world.rng.randrange(2**63))
        bad.write_bytes(data)
    try:
        if bad.name not in world.run(graphs.slots()):
            raise Fault("Slots did not name a damaged file")
        world.run(graphs.merge([bad.name, *map(world.name_of, files)], "auto", 0))
        raise Fault("a damaged file was merged")
    except NodeError as error:
        if bad.name not in error.text or "ValueError" not in f"{error.kind} FileError ValueError":
            raise
    finally:
        bad.unlink()
    world.run(graphs.merge([*map(world.name_of, files)], "auto", world.rng.randrange(1000)))


def loader(world: World) -> None:
    """Plain LoRAs, kept apart in one node."""
    for number in (1, 2):
        random = torch.Generator().manual_seed(world.rng.randrange(3) * 10 + number)
        pair = {"up": torch.randn(320, 4, generator=random), "down": torch.randn(4, 320, generator=random)}
        tensors = {f"{STEM}.lora_{name}.weight": value * 0.01 for name, value in pair.items()}
        safetensors.torch.save_file(tensors, world.loras / f"plain{number}.safetensors")
    told = world.run(graphs.loader("plain1 | 0.8\nplain2 | 0.5 | on | a hat", world.rng.randrange(1000)))
    if told.count("kept apart by Grams") != 2:
        raise Fault(f"plain LoRAs were not kept apart: {told[-300:]}")


def slots(world: World) -> None:
    """Every concept's file is there."""
    told = world.run(graphs.slots())
    missing = [path.stem for path in world.kept if path.parent.name == "soak" and path.stem not in told]
    if missing:
        raise Lost(f"Slots does not know {', '.join(missing)}")


Action = Callable[[World], None]

ACTIONS: Mapping[Action, int] = {
    train: 4, cancel: 3, terminate: 2, kill: 1, full_disk: 2, merge: 5, region: 3, export: 2, delete: 3, damage: 2,
    loader: 2, slots: 2,
}  # fmt: skip
"""How often each comes, relative to the others."""
