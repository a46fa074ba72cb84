"""Nodes that several templates share."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from .story import Column, Node, Note, Wire

STABLE_DIFFUSION = {
    "name": "v1-5-pruned-emaonly-fp16.safetensors",
    "url": "https://huggingface.co/Comfy-Org/stable-diffusion-v1-5-archive/resolve/main/v1-5-pruned-emaonly-fp16.safetensors?download=true",
    "directory": "checkpoints",
}
"""What ComfyUI's own templates for Stable Diffusion 1.5 name, so that nobody needs it twice."""

CHECKPOINT = """**Checkpoint**: any that ComfyUI loads; here Stable Diffusion 1.5. It is chosen in one place, *Your checkpoint*."""

BASE: Mapping[str, Wire] = {"model": ("base", "MODEL"), "clip": ("base", "CLIP")}


def first(text: str) -> Column:
    """What to read, and the one place where the checkpoint is chosen."""
    note = Note(f"{text.strip()}\n\n{CHECKPOINT}\n", (340, 400))
    base = Node(
        "base",
        "CheckpointLoaderSimple",
        (340, 120),
        values={"ckpt_name": STABLE_DIFFUSION["name"]},
        title="Your checkpoint",
        models=(STABLE_DIFFUSION,),
    )
    return Column("1  Choose your checkpoint", (note, base))


def loader() -> Node:
    return Node("loader", "BlockLoRALoader", (440, 620), BASE, title="Your LoRAs")


def box(left: float, top: float, width: float, height: float, prompt: str, concept: str = "") -> dict[str, Any]:
    """A box of a scene, in shares of the picture."""
    where = {"x": left, "y": top, "w": width, "h": height}
    return {**where, "concept": concept, "prompt": prompt}


def scene(title: str, size: tuple[int, int], prompt: str, boxes: list[dict[str, Any]], wires: Mapping[str, Wire]) -> Node:
    """A canvas of (width, height) pixels with its boxes."""
    told = {"width": size[0], "height": size[1], "prompt": prompt, "negative": NEGATIVE}
    values = {**told, "scene": json.dumps({"boxes": boxes})}
    return Node("scene", "BlockLoRAScene", (460, 860), wires, values, title=title)


NEGATIVE = "blurry, low quality, text, watermark"


def sampling(title: str, wires: Mapping[str, Wire], prefix: str) -> tuple[Column, Column]:
    """From a model and its prompts to the saved picture. wires: of KSampler."""
    sampler = Node("sampler", "KSampler", (300, 560), wires, {"cfg": 7.0, "sampler_name": "dpmpp_2m", "scheduler": "karras"})
    decode = Node("decode", "VAEDecode", (300, 60), {"samples": ("sampler", "LATENT"), "vae": ("base", "VAE")})
    images: Mapping[str, Wire] = {"images": ("decode", "IMAGE")}
    save = Node("save", "SaveImage", (420, 500), images, {"filename_prefix": f"BlockLoRA/{prefix}"})
    return Column(title, (sampler, decode)), Column("", (save,))


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
