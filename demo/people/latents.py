"""The corpus as the denoiser sees it: latents by picture width, and token ids."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from comfy.taesd.taesd import TAESD
from PIL import Image

from demo.people.autoencoder import LATENT_SCALE, to_model
from demo.people.scenes import Record


@dataclass(frozen=True)
class Bucket:
    """Pictures of one size: latents (N, 4, h, w) in half precision, token ids (N, 77)."""

    latents: torch.Tensor
    ids: torch.Tensor


@torch.no_grad()
def _encode(vae: TAESD, paths: list[Path], device: str, chunk: int = 50) -> torch.Tensor:
    latents = []
    for start in range(0, len(paths), chunk):
        pixels = to_model([np.asarray(Image.open(path).convert("RGB")) for path in paths[start : start + chunk]])
        with torch.autocast(device, torch.bfloat16):
            latents.append((vae.encode(pixels.to(device)).float().cpu() * LATENT_SCALE).half())
    return torch.cat(latents)


def encode_corpus(
    records: list[Record], pictures: Path, vae: TAESD, tokenize: Callable[[str], list[int]], device: str = "cpu"
) -> list[Bucket]:
    buckets = []
    for width in sorted({record["width"] for record in records}):
        chosen = [record for record in records if record["width"] == width]
        latents = _encode(vae, [pictures / record["file"] for record in chosen], device)
        buckets.append(Bucket(latents, torch.tensor([tokenize(record["caption"]) for record in chosen])))
        print(f"latents: {len(chosen)} of width {width}, std {latents.float().std():.3f}", flush=True)
    return buckets


def save_buckets(buckets: list[Bucket], path: Path) -> None:
    partial = path.with_suffix(".part")
    torch.save([{"latents": bucket.latents, "ids": bucket.ids} for bucket in buckets], partial)
    partial.replace(path)


def load_buckets(path: Path) -> list[Bucket]:
    return [Bucket(**stored) for stored in torch.load(path, weights_only=True)]
