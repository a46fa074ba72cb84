"""The corpus as the denoiser sees it: latents by picture width, and token ids.

Encoding is cut into parts that are files of their own, so that a killed run goes on and a larger corpus adds to it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from comfy.sd1_clip import SDTokenizer
from comfy.taesd.taesd import TAESD
from PIL import Image

from demo.people.recipe.autoencoder import LATENT_SCALE, to_model
from demo.people.recipe.stages import half_precision, load_state, save_state
from demo.people.scenes import Record

PART, CHUNK = 400, 16


class Tokenizer:
    """Prompt -> 77 token ids, as ComfyUI's SD1.5 tokenizer gives them."""

    def __init__(self) -> None:
        self.tokenizer = SDTokenizer()

    def __call__(self, text: str) -> list[int]:
        return [token for token, _ in self.tokenizer.tokenize_with_weights(text)[0]]


@dataclass(frozen=True)
class Bucket:
    """Pictures of one size: latents (N, 4, h, w) in half precision, token ids (N, 77)."""

    latents: torch.Tensor
    ids: torch.Tensor


@torch.no_grad()
def _encode(vae: TAESD, paths: list[Path], device: str) -> torch.Tensor:
    latents = []
    for start in range(0, len(paths), CHUNK):
        pixels = to_model([np.asarray(Image.open(path).convert("RGB")) for path in paths[start : start + CHUNK]])
        with half_precision(device):
            encoded = vae.encode(pixels.to(device, memory_format=torch.channels_last))
        latents.append((encoded.float().cpu() * LATENT_SCALE).contiguous().half())
    return torch.cat(latents)


def _encode_part(
    records: list[Record], pictures: Path, vae: TAESD, tokenize: Callable[[str], list[int]], device: str
) -> dict[str, torch.Tensor]:
    part = {}
    for width in sorted({record["width"] for record in records}):
        chosen = [record for record in records if record["width"] == width]
        part[f"latents_{width}"] = _encode(vae, [pictures / record["file"] for record in chosen], device)
        part[f"ids_{width}"] = torch.tensor([tokenize(record["caption"]) for record in chosen])
    return part


def encode_corpus(
    records: list[Record],
    pictures: Path,
    vae: TAESD,
    tokenize: Callable[[str], list[int]],
    folder: Path,
    device: str = "cpu",
) -> None:
    """Write the parts that are missing; a last one that is not full is left out."""
    for start in range(0, len(records) - PART + 1, PART):
        path = folder / f"{start:06d}.pt"
        if not path.is_file():
            save_state(_encode_part(records[start : start + PART], pictures, vae, tokenize, device), path)
            print(f"latents: {start + PART} of {len(records)}", flush=True)


def load_buckets(folder: Path) -> list[Bucket]:
    """All parts there are, a bucket for each width."""
    parts = [load_state(path) or {} for path in sorted(folder.glob("*.pt"))]
    widths = sorted({name.removeprefix("ids_") for part in parts for name in part if name.startswith("ids_")})
    return [
        Bucket(*(torch.cat([part[f"{kind}_{width}"] for part in parts]) for kind in ("latents", "ids")))
        for width in widths
    ]
