"""Training of the small autoencoder (TAESD layout, which ComfyUI loads as a VAE)."""

from __future__ import annotations

import time
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from comfy.taesd.taesd import TAESD

from demo.art import Sprites, any_picture


@dataclass(frozen=True)
class AutoencoderRecipe:
    steps: int = 2000
    batch: int = 16
    learning_rate: float = 6e-4
    warmup: int = 100
    latent_noise: float = 0.02
    seed: int = 0


def initialise(module: torch.nn.Module) -> None:
    """PyTorch's own initialisation, which ComfyUI's operations skip."""
    for child in module.modules():
        if isinstance(child, torch.nn.Conv2d):
            torch.nn.Conv2d.reset_parameters(child)


def learning_rate(step: int, steps: int, warmup: int, peak: float) -> float:
    """Linear warm-up, then half a cosine down to nothing."""
    if step < warmup:
        return peak * (step + 1) / warmup
    progress = (step - warmup) / max(1, steps - warmup)
    return peak * 0.5 * (1 + float(np.cos(np.pi * progress)))


def _gradients(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    return x[..., 1:, :] - x[..., :-1, :], x[..., :, 1:] - x[..., :, :-1]


def reconstruction_loss(decoded: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """L1 + MSE + L1 of the image gradients; both (B, 3, H, W) in [0, 1]."""
    edges = sum(F.l1_loss(a, b) for a, b in zip(_gradients(decoded), _gradients(target), strict=True))
    return F.l1_loss(decoded, target) + 4 * F.mse_loss(decoded, target) + edges


def picture_batch(sprites: Sprites, rng: np.random.RandomState, count: int) -> torch.Tensor:
    pixels = np.stack([any_picture(sprites, rng) for _ in range(count)])
    return torch.from_numpy(pixels).permute(0, 3, 1, 2).float() / 255


def train_autoencoder(sprites: Sprites, recipe: AutoencoderRecipe, device: str = "cpu") -> TAESD:
    """Train encoder and decoder; `vae_scale` is set so that latents of the model have unit variance."""
    torch.manual_seed(recipe.seed)
    generator = torch.Generator().manual_seed(recipe.seed)
    rng = np.random.RandomState(recipe.seed)
    vae = TAESD()
    initialise(vae)
    vae.to(device, memory_format=torch.channels_last)
    trained = [*vae.taesd_encoder.parameters(), *vae.taesd_decoder.parameters()]
    optimizer = torch.optim.AdamW(trained, lr=recipe.learning_rate, betas=(0.9, 0.99), weight_decay=0.0)
    started, errors = time.time(), []
    for step in range(recipe.steps):
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(step, recipe.steps, recipe.warmup, recipe.learning_rate)
        target = picture_batch(sprites, rng, recipe.batch).to(device, memory_format=torch.channels_last)
        with torch.autocast(device, torch.bfloat16):
            latent = vae.taesd_encoder(target)
            noise = torch.randn(latent.shape, generator=generator).to(device)
            decoded = vae.taesd_decoder(latent + recipe.latent_noise * noise)
        loss = reconstruction_loss(decoded.float(), target)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(trained, 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        errors.append(F.mse_loss(decoded.float(), target).item())
        if step % 25 == 24:
            error = float(np.mean(errors[-25:]))
            spread = latent.float().std().item()
            print(
                f"autoencoder {step}/{recipe.steps} mse {error:.4f} "
                f"latent std {spread:.2f} {time.time() - started:.0f}s",
                flush=True,
            )
    return _unit_variance(vae, sprites, rng)


@torch.no_grad()
def _unit_variance(vae: TAESD, sprites: Sprites, rng: np.random.RandomState) -> TAESD:
    latents = vae.taesd_encoder(picture_batch(sprites, rng, 64).to(next(vae.parameters()).device))
    # ComfyUI multiplies SD1.5 latents by 0.18215 before the UNet sees them.
    vae.vae_scale.fill_(float(latents.std()) * 0.18215)
    vae.vae_shift.fill_(float(latents.mean()) / float(vae.vae_scale) * -1.0)
    return vae
