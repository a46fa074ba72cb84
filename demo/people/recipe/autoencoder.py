"""Training of the autoencoder (TAESD layout, which ComfyUI loads as a VAE) to keep eyes and mouths of drawn people."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from comfy.taesd.taesd import TAESD
from PIL import Image

from demo.people.recipe.stages import Clock, half_precision, learning_rate, load_state, save_state

LATENT_SCALE = 0.18215  # ComfyUI multiplies SD1.5 latents by this before the UNet sees them.


@dataclass(frozen=True)
class AutoencoderRecipe:
    steps: int = 1500
    batch: int = 4
    crop: int = 64
    learning_rate: float = 4.5e-4
    warmup: int = 30
    latent_noise: float = 0.02
    detailed: float = 0.5  # share of crops that are the busiest of four: most of a picture is plain ground
    decoder_only: bool = False  # keeps the latents that a denoiser has learnt
    seed: int = 0
    checkpoint_seconds: float = 240.0


def load_pictures(folder: Path, limit: int) -> list[np.ndarray]:
    paths = sorted(folder.glob("*.png"))[:limit]
    return [np.asarray(Image.open(path).convert("RGB")) for path in paths]


def _crop(picture: np.ndarray, side: int, rng: np.random.RandomState) -> np.ndarray:
    top, left = (rng.randint(length - side + 1) for length in picture.shape[:2])
    return picture[top : top + side, left : left + side]


def _busy(crop: np.ndarray) -> float:
    gray = crop.astype(np.float32).mean(2)
    return float(np.abs(np.diff(gray, axis=0)).mean() + np.abs(np.diff(gray, axis=1)).mean())


def crop_batch(pictures: list[np.ndarray], recipe: AutoencoderRecipe, rng: np.random.RandomState) -> torch.Tensor:
    """(B, 3, crop, crop) in [0, 1], mirrored half of the time."""
    crops = []
    for _ in range(recipe.batch):
        picture = pictures[rng.randint(len(pictures))]
        tries = 4 if rng.rand() < recipe.detailed else 1
        crop = max((_crop(picture, recipe.crop, rng) for _ in range(tries)), key=_busy)
        crops.append(crop[:, ::-1] if rng.rand() < 0.5 else crop)
    return to_unit(crops)


def _gradients(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    return x[..., 1:, :] - x[..., :-1, :], x[..., :, 1:] - x[..., :, :-1]


def reconstruction_loss(decoded: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """L1 + MSE + L1 of the image gradients; both (B, 3, H, W) in [0, 1]."""
    edges = sum(F.l1_loss(a, b) for a, b in zip(_gradients(decoded), _gradients(target), strict=True))
    return F.l1_loss(decoded, target) + 8 * F.mse_loss(decoded, target) + edges


def _trained(vae: TAESD, recipe: AutoencoderRecipe) -> list[torch.nn.Parameter]:
    encoder = [] if recipe.decoder_only else list(vae.taesd_encoder.parameters())
    return [*encoder, *vae.taesd_decoder.parameters()]


def _step(vae: TAESD, target: torch.Tensor, recipe: AutoencoderRecipe) -> tuple[torch.Tensor, float]:
    with half_precision(target.device.type):
        with torch.set_grad_enabled(not recipe.decoder_only):
            latent = vae.taesd_encoder(target)
        decoded = vae.taesd_decoder(latent + recipe.latent_noise * torch.randn_like(latent))
    decoded = decoded.float()
    return reconstruction_loss(decoded, target), F.mse_loss(decoded, target).item()


def train_autoencoder(
    vae: TAESD, pictures: list[np.ndarray], recipe: AutoencoderRecipe, state_file: Path, device: str = "cpu"
) -> TAESD:
    """Go on from the state file, if there is one, to the recipe's last step."""
    vae.to(device, memory_format=torch.channels_last)
    trained = _trained(vae, recipe)
    optimizer = torch.optim.AdamW(trained, lr=recipe.learning_rate, betas=(0.9, 0.99), weight_decay=0.0)
    state: dict[str, Any] = load_state(state_file) or {"step": 0, "seconds": 0.0}
    if state["step"]:
        vae.load_state_dict(state["vae"])
        optimizer.load_state_dict(state["optimizer"])
    clock, errors = Clock(state["seconds"], recipe.checkpoint_seconds), []

    def keep(step: int) -> None:
        stored = {"vae": vae.state_dict(), "optimizer": optimizer.state_dict()}
        save_state({"step": step, "seconds": clock.seconds(), **stored}, state_file)

    for step in range(state["step"], recipe.steps):
        # Lot of its own for every step, so that a run in several sittings sees what one in a single sitting sees.
        rng = np.random.RandomState([recipe.seed, step])
        torch.manual_seed(recipe.seed * 1_000_003 + step)
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(step, recipe.steps, recipe.warmup, recipe.learning_rate)
        target = crop_batch(pictures, recipe, rng).to(device, memory_format=torch.channels_last)
        loss, error = _step(vae, target, recipe)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(trained, 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        errors.append(error)
        if step % 25 == 24:
            decibels = -10 * np.log10(np.mean(errors[-25:]))
            print(f"autoencoder {step + 1}/{recipe.steps} crops {decibels:.2f} dB {clock.seconds():.0f}s", flush=True)
        if clock.due():
            keep(step + 1)
    keep(recipe.steps)
    return vae


def _stacked(pictures: Sequence[np.ndarray]) -> torch.Tensor:
    return torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2).float()


def to_unit(pictures: Sequence[np.ndarray]) -> torch.Tensor:
    """Pictures of one size, uint8 -> (B, 3, H, W) in [0, 1]."""
    return _stacked(pictures) / 255


def to_model(pictures: list[np.ndarray]) -> torch.Tensor:
    """Pictures of one size -> (B, 3, H, W) in [-1, 1], as ComfyUI gives them to a VAE."""
    return _stacked(pictures) / 127.5 - 1


@torch.no_grad()
def fit_scale(vae: TAESD, pictures: list[np.ndarray]) -> None:
    """Set the VAE's own scale and shift so that the latents that the UNet sees have no mean and unit variance."""
    latents = torch.cat([vae.taesd_encoder(to_model([p]) / 2 + 0.5).flatten() for p in pictures])
    vae.vae_scale.fill_(float(latents.std()) * LATENT_SCALE)
    vae.vae_shift.fill_(-float(latents.mean()) / float(vae.vae_scale))


@torch.no_grad()
def round_trip(vae: TAESD, picture: np.ndarray) -> np.ndarray:
    decoded = vae.decode(vae.encode(to_model([picture])))[0]
    return ((decoded + 1) * 127.5).round().clamp(0, 255).byte().permute(1, 2, 0).numpy()


def psnr(vae: TAESD, pictures: list[np.ndarray]) -> float:
    """Mean over the pictures of each one's peak signal-to-noise ratio, in decibels."""
    values = []
    for picture in pictures:
        error = np.square(round_trip(vae, picture).astype(np.float64) - picture).mean()
        values.append(10 * np.log10(255**2 / error))
    return float(np.mean(values))
