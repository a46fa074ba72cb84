"""Files as other tools write them, made from known layers."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch import Tensor


@dataclass(frozen=True)
class Known:
    """One layer: change = scale * up @ down, its scale fixed by how the file is written."""

    side: str
    module: str
    stem: str
    up: Tensor
    down: Tensor
    alpha: float

    @property
    def rank(self) -> int:
        return self.down.shape[0]

    def change(self, scale: float) -> Tensor:
        return (scale * self.up.flatten(1) @ self.down.flatten(1)).reshape(-1, *self.down.shape[1:])


def named(layers: list[Known], name: Callable[[Known], str], down: str, up: str, alpha: str = "") -> dict[str, Tensor]:
    tensors = {}
    for layer in layers:
        tensors[name(layer) + down], tensors[name(layer) + up] = layer.down, layer.up
        if alpha:
            tensors[name(layer) + alpha] = torch.tensor(layer.alpha)
    return tensors


def write(path: Path, tensors: dict[str, Tensor], entries: dict[str, str] | None = None) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    safetensors.torch.save_file(tensors, path, entries)
    return path


def processor(layer: Known) -> str:
    """Old files name the attention's processor, and the first of to_out's two parts as to_out."""
    if layer.side == "text_encoder":
        return layer.module
    return layer.module.replace(".to_", ".processor.to_").removesuffix(".0")


Writer = Callable[[Path, list[Known]], Path]


def kohya(folder: Path, layers: list[Known]) -> Path:
    tensors = named(layers, lambda a: a.stem, ".lora_down.weight", ".lora_up.weight", ".alpha")
    return write(folder / "hero.safetensors", tensors)


def diffusers(folder: Path, layers: list[Known]) -> Path:
    tensors = named(layers, lambda a: f"{a.side}.{a.module}", ".lora_A.weight", ".lora_B.weight")
    return write(folder / "hero.safetensors", tensors)


def diffusers_alpha(folder: Path, layers: list[Known]) -> Path:
    tensors = named(layers, lambda a: f"{a.side}.{a.module}", ".lora.down.weight", ".lora.up.weight", ".alpha")
    return write(folder / "hero.safetensors", tensors)


def diffusers_old(folder: Path, layers: list[Known]) -> Path:
    tensors = named(layers, lambda a: f"{a.side}.{processor(a)}", "_lora.down.weight", "_lora.up.weight")
    return write(folder / "hero.safetensors", tensors)


def diffusers_bin(folder: Path, layers: list[Known]) -> Path:
    tensors = named(layers, lambda a: f"{a.side}.{processor(a)}", "_lora.down.weight", "_lora.up.weight")
    torch.save(tensors, folder / "hero.bin")
    return folder / "hero.bin"


def diffusers_configured(folder: Path, layers: list[Known]) -> Path:
    """Newer diffusers: PEFT's configuration in the metadata, the alphas as patterns."""
    config: dict[str, Any] = {}
    for side in ("unet", "text_encoder"):
        config[f"{side}.lora_alpha"] = 1
        config[f"{side}.alpha_pattern"] = {a.module: a.alpha for a in layers if a.side == side}
    tensors = named(layers, lambda a: f"{a.side}.{a.module}", ".lora_A.weight", ".lora_B.weight")
    return write(folder / "hero.safetensors", tensors, {"lora_adapter_metadata": json.dumps(config)})


def peft_tensors(layers: list[Known], adapter: str = "") -> dict[str, Tensor]:
    return named(
        layers, lambda a: f"base_model.model.{a.module}", f".lora_A{adapter}.weight", f".lora_B{adapter}.weight"
    )


def peft_config(layers: list[Known], **more: object) -> str:
    alphas = {a.module.replace(".", r"\."): a.alpha for a in layers}
    return json.dumps({"peft_type": "LORA", "lora_alpha": 1, "r": 2, "alpha_pattern": alphas, **more})


def peft(folder: Path, layers: list[Known]) -> Path:
    path = write(folder / "hero" / "adapter_model.safetensors", peft_tensors(layers))
    (path.parent / "adapter_config.json").write_text(peft_config(layers), "utf-8")
    return path


def peft_stabilised(folder: Path, layers: list[Known]) -> Path:
    path = write(folder / "hero" / "adapter_model.safetensors", peft_tensors(layers, ".mine"))
    (path.parent / "adapter_config.json").write_text(peft_config(layers, use_rslora=True), "utf-8")
    return path


def peft_bare(folder: Path, layers: list[Known]) -> Path:
    return write(folder / "hero.safetensors", peft_tensors(layers, ".default"))


def ed_lora_tree(layers: list[Known], name: Callable[[Known], str], down: str, up: str) -> dict[str, Any]:
    sides = {side: named([a for a in layers if a.side == side], name, down, up) for side in ("unet", "text_encoder")}
    tokens = {"<x1>": layerwise(layers, 1), "<x2>": layerwise(layers, 2)}
    return {"new_concept_embedding": tokens, **sides}


def layerwise(layers: list[Known], seed: int) -> Tensor:
    """A token's vectors: one for each cross-attention among `layers`, or 16 as Stable Diffusion 1.5 has."""
    count = sum(layer.module.endswith("attn2.to_q") for layer in layers) or 16
    return torch.randn(count, 768, generator=torch.Generator().manual_seed(seed))


def pickled(folder: Path, tree: object) -> Path:
    torch.save(tree, folder / "hero.pth")
    return folder / "hero.pth"


def ed_lora(folder: Path, layers: list[Known]) -> Path:
    tree = ed_lora_tree(layers, lambda a: a.module, ".lora_down.weight", ".lora_up.weight")
    return pickled(folder, {"params": tree})


def ed_lora_old(folder: Path, layers: list[Known]) -> Path:
    return pickled(folder, {"params": ed_lora_tree(layers, lambda a: a.module, "_lora.down.weight", "_lora.up.weight")})


Scale = Callable[[Known], float]


def one(_: Known) -> float:
    return 1.0


def by_alpha(layer: Known) -> float:
    return layer.alpha / layer.rank


def stabilised(layer: Known) -> float:
    return layer.alpha / math.sqrt(layer.rank)


WRITERS: list[tuple[Writer, Scale]] = [
    (kohya, by_alpha),
    (diffusers, one),
    (diffusers_alpha, by_alpha),
    (diffusers_old, one),
    (diffusers_bin, one),
    (diffusers_configured, by_alpha),
    (peft, by_alpha),
    (peft_stabilised, stabilised),
    (peft_bare, one),
    (ed_lora, one),
    (ed_lora_old, one),
]
