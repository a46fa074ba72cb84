"""Nodes that several templates share."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from .story import Column, Node, Note, Wire

STABLE_DIFFUSION = {
    "name": "v1-5-pruned-emaonly-fp16.safetensors",
    "url": "https://huggingface.co/Comfy-Org/stable-diffusion-v1-5-archive/resolve/main/"
    "v1-5-pruned-emaonly-fp16.safetensors?download=true",
    "directory": "checkpoints",
}
"""What ComfyUI's own templates for Stable Diffusion 1.5 name, so that nobody needs it twice."""

CHECKPOINT = "**Checkpoint**: any that ComfyUI loads, chosen in one place below. Until you do, Stable Diffusion 1.5."

BASE: Mapping[str, Wire] = {"model": ("base", "MODEL"), "clip": ("base", "CLIP")}


def first(text: str, *more: Node, title: str = "1  Choose your checkpoint", lines: int = 400) -> Column:
    """What to read, in `lines` pixels, the one place where the checkpoint is chosen, and `more` that comes first."""
    note = Note(f"{text.strip()}\n\n{CHECKPOINT}\n", (290, lines))
    base = Node(
        "base",
        "CheckpointLoaderSimple",
        (290, 120),
        values={"ckpt_name": STABLE_DIFFUSION["name"]},
        title="Your checkpoint",
        models=(STABLE_DIFFUSION,),
    )
    return Column(title, (note, base, *more))


def loader() -> Node:
    return Node("loader", "BlockLoRALoader", (400, 440), BASE, title="Your LoRAs", grows=REPORT + 180)


def box(left: float, top: float, width: float, height: float, prompt: str, concept: str = "") -> dict[str, Any]:
    """A box of a scene, in shares of the picture."""
    where = {"x": left, "y": top, "w": width, "h": height}
    return {**where, "concept": concept, "prompt": prompt}


BOXES = [
    box(0.04, 0.1, 0.44, 0.9, "a woman with red hair, {scene}"),
    box(0.52, 0.06, 0.44, 0.94, "a man with a grey beard, {scene}"),
]
"""Two people side by side, whom no LoRA is needed for."""


def scene(
    title: str, size: tuple[int, int], prompt: str, boxes: list[dict[str, Any]], wires: Mapping[str, Wire]
) -> Node:
    """A canvas of (width, height) pixels with its boxes."""
    told = {"width": size[0], "height": size[1], "prompt": prompt, "negative": NEGATIVE}
    values = {**told, "scene": json.dumps({"boxes": boxes})}
    return Node("scene", "BlockLoRAScene", (420, 780), wires, values, title, REPORT)


PICTURE = "4  The picture"
REPORT = 220
"""What a report adds to a node."""

KEPT = {"if_exists": "overwrite"}
NEGATIVE = "blurry, low quality, text, watermark"


def sampling(title: str, wires: Mapping[str, Wire], prefix: str) -> Column:
    """From a model and its prompts to the saved picture. wires: of KSampler."""
    images: Mapping[str, Wire] = {"images": ("decode", "IMAGE")}
    saved = {"filename_prefix": f"BlockLoRA/{prefix}"}
    latent: Mapping[str, Wire] = {"samples": ("sampler", "LATENT"), "vae": ("base", "VAE")}
    return Column(
        title,
        (
            Node("sampler", "KSampler", (320, 340), wires, SAMPLER),
            Node("decode", "VAEDecode", (320, 60), latent),
            Node("save", "SaveImage", (320, 440), images, saved),
        ),
    )


SAMPLER = {"cfg": 7.0, "sampler_name": "dpmpp_2m", "scheduler": "karras"}

SCENE: Mapping[str, Wire] = {
    "model": ("scene", "MODEL"),
    "positive": ("scene", "positive"),
    "negative": ("scene", "negative"),
    "latent_image": ("scene", "latent"),
}
"""KSampler's inputs, from a scene."""

LOADED: Mapping[str, Wire] = {
    "model": ("loader", "MODEL"),
    "clip": ("loader", "CLIP"),
    "stack": ("loader", "stack"),
}
"""A scene's inputs, from the Loader."""

MERGED: Mapping[str, Wire] = {
    "model": ("merge", "MODEL"),
    "clip": ("merge", "CLIP"),
    "stack": ("trained", "stack"),
}
"""A scene's inputs, from Merge."""
