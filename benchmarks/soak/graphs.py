"""The graphs that the actions run, in API form, as small as they can be."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

Graph = dict[str, dict[str, Any]]

CHECKPOINT = "blocklora_demo.safetensors"
PREFIX = "soak/"
SIZE = 64

LOADER: dict[str, Any] = {"class_type": "CheckpointLoaderSimple", "inputs": {"ckpt_name": CHECKPOINT}}


def node(kind: str, **inputs: Any) -> dict[str, Any]:
    return {"class_type": kind, "inputs": inputs}


def train(concept: str, folder: str, steps: int, seed: int) -> Graph:
    """Pictures, Train and Save."""
    numbers = {"steps": steps, "batch_size": 1, "rank": 2, "learning_rate": 0.001, "erasure": 0.0, "niche": 0.0}
    wires = {"model": ["1", 0], "clip": ["1", 1], "vae": ["1", 2], "images": ["2", 0], "captions": ["2", 1]}
    names = {"concept": concept, "class_word": "person", "slot": -1, "resolution": SIZE, "preview_every": 0}
    return {
        "1": LOADER,
        "2": node("BlockLoRAImages", folder=folder, default_caption=""),
        "3": node("BlockLoRATrain", **wires, **names, **numbers, seed=seed),
        "4": node("BlockLoRASave", stack=["3", 0], prefix=PREFIX, if_exists="keep both"),
    }


def stacked(files: Sequence[str]) -> Graph:
    """A Load for each file, and "s", their stack."""
    graph: Graph = {"1": LOADER}
    for number, name in enumerate(files):
        graph[f"l{number}"] = node("BlockLoRALoad", lora_name=name, strength=1.0)
    return {**graph, "s": node("BlockLoRAStack", **{f"stack_{at + 1}": [f"l{at}", 0] for at in range(len(files))})}


def _picture(model: list[Any], clip: list[Any], text: str, seed: int) -> Graph:
    """One step of sampling."""
    how = {"seed": seed, "steps": 1, "cfg": 1.0, "sampler_name": "euler", "scheduler": "normal", "denoise": 1.0}
    wires = {"model": model, "positive": ["91", 0], "negative": ["91", 0], "latent_image": ["92", 0]}
    return {
        "91": node("CLIPTextEncode", clip=clip, text=text),
        "92": node("EmptyLatentImage", width=SIZE, height=SIZE, batch_size=1),
        "93": node("KSampler", **wires, **how),
        "94": node("VAEDecode", samples=["93", 0], vae=["1", 2]),
        "95": node("PreviewImage", images=["94", 0]),
    }


def _merged(files: Sequence[str], method: str) -> Graph:
    wires = {"model": ["1", 0], "clip": ["1", 1], "stack": ["s", 0]}
    # Two of the same rows may meet after slots were freed and given again.
    return {**stacked(files), "m": node("BlockLoRAMerge", **wires, method=method, overlap="priority")}


def merge(files: Sequence[str], method: str, seed: int) -> Graph:
    """A merge and a picture of it."""
    return {**_merged(files, method), **_picture(["m", 0], ["m", 1], "a person", seed)}


def regions(files: Sequence[str], seed: int) -> Graph:
    """A merge whose picture has two boxes."""
    boxes: Graph = {"p": node("CLIPTextEncode", clip=["m", 1], text="a person")}
    for number, left in enumerate((0.0, 0.5)):
        before = {"regions": ["r0", 0]} if number else {}
        place = {"x": left, "y": 0.0, "width": 0.5, "height": 1.0, "concept": "", "weight": 1.0, "feather": 0.0}
        boxes[f"r{number}"] = node("BlockLoRARegion", positive=["p", 0], **place, priority=0, **before)
    shared = {"model": ["m", 0], "regions": ["r1", 0], "overlap": "mean", "start": 0.0, "end": 1.0}
    boxes["rs"] = node("BlockLoRARegionalSampling", **shared)
    return {**_merged(files, "per_row"), **boxes, **_picture(["rs", 0], ["m", 1], "a wall", seed)}


def export(files: Sequence[str], name: str) -> Graph:
    wires = {"model": ["1", 0], "clip": ["1", 1], "stack": ["s", 0]}
    how = {"method": "per_row", "overlap": "priority", "name": name, "dtype": "auto", "max_rank": 0}
    return {**stacked(files), "e": node("BlockLoRAExport", **wires, **how, if_exists="keep both")}


def loader(lines: str, seed: int) -> Graph:
    """A list of files, kept apart, and a picture of them."""
    made = node("BlockLoRALoader", model=["1", 0], clip=["1", 1], files=lines, pictures=1, steps=2, size=SIZE)
    return {"1": LOADER, "m": made, **_picture(["m", 0], ["m", 1], "a person", seed)}


def slots() -> Graph:
    return {"1": node("BlockLoRASlots")}
