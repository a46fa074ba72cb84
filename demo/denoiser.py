"""Training of the small SD1.5-layout UNet on cached latents."""

from __future__ import annotations

import copy
import time
from collections.abc import Callable
from dataclasses import dataclass

import comfy.ops
import numpy as np
import torch
from comfy.ldm.modules.diffusionmodules.openaimodel import UNetModel
from comfy.taesd.taesd import TAESD

from demo.art import Sprites, pair_scene, single_scene
from demo.autoencoder import learning_rate
from demo.base import UNET_CONFIG
from demo.text_encoder import FastTextEncoder


@dataclass(frozen=True)
class DenoiserRecipe:
    steps: int = 2700
    batch: int = 16
    learning_rate: float = 5e-4
    warmup: int = 200
    scenes: int = 5000
    pairs: float = 0.15
    unconditional: float = 0.1
    min_snr: float = 5.0
    ema: float = 0.999
    seed: int = 1


@dataclass
class SceneBank:
    """Cached training data: latents (N, 4, SIZE / 8, SIZE / 8) as the UNet sees them, token ids (N, 77)."""

    latents: torch.Tensor
    ids: torch.Tensor


def initialise_unet(unet: UNetModel) -> None:
    """PyTorch's own initialisation, which ComfyUI's operations skip; every block begins as doing nothing."""
    for name, module in unet.named_modules():
        for kind in (torch.nn.Linear, torch.nn.Conv2d):
            # Called on the class: ComfyUI's operations make the method do nothing.
            if isinstance(module, kind):
                kind.reset_parameters(module)
        if isinstance(module, (torch.nn.GroupNorm, torch.nn.LayerNorm)):
            module.weight.data.fill_(1.0)
            module.bias.data.zero_()
        if name.endswith((".out_layers.3", ".proj_out", "out.2")):
            module.weight.data.zero_()
            module.bias.data.zero_()


def build_unet() -> UNetModel:
    unet = UNetModel(**UNET_CONFIG, dtype=torch.float32, operations=comfy.ops.disable_weight_init)
    initialise_unet(unet)
    return unet


@torch.no_grad()
def build_bank(
    sprites: Sprites, vae: TAESD, tokenize: Callable[[str], list[int]], recipe: DenoiserRecipe, device: str
) -> SceneBank:
    rng = np.random.RandomState(recipe.seed)
    latents, ids, chunk = [], [], []
    for number in range(recipe.scenes):
        scene = (pair_scene if rng.rand() < recipe.pairs else single_scene)(sprites, rng)
        ids.append(tokenize(scene.caption))
        chunk.append(scene.pixels)
        if len(chunk) == 100 or number == recipe.scenes - 1:
            pixels = torch.from_numpy(np.stack(chunk)).permute(0, 3, 1, 2).float().to(device) / 127.5 - 1
            with torch.autocast(device, torch.bfloat16):
                latents.append(vae.encode(pixels).float().cpu() * 0.18215)
            chunk = []
            if number % 1000 > 899:
                print(f"scenes {number + 1}/{recipe.scenes}", flush=True)
    bank = SceneBank(torch.cat(latents), torch.tensor(ids))
    print(f"latents: mean {bank.latents.mean():.3f}, std {bank.latents.std():.3f}", flush=True)
    return bank


def alphas_cumprod() -> torch.Tensor:
    return torch.cumprod(1 - torch.linspace(0.00085**0.5, 0.012**0.5, 1000, dtype=torch.float64) ** 2, 0).float()


def train_denoiser(
    bank: SceneBank,
    text: FastTextEncoder,
    empty: list[int],
    recipe: DenoiserRecipe,
    device: str = "cpu",
    every: Callable[[int, UNetModel], None] | None = None,
) -> UNetModel:
    """Epsilon prediction with min-SNR weights; returns the exponential moving average."""
    torch.manual_seed(recipe.seed)
    generator = torch.Generator().manual_seed(recipe.seed)
    unet = build_unet().to(device).train()
    average = copy.deepcopy(unet).eval().requires_grad_(False)
    optimizer = torch.optim.AdamW(
        unet.parameters(), lr=recipe.learning_rate, betas=(0.9, 0.99), weight_decay=0.01, fused=True
    )
    alphas = alphas_cumprod().to(device)
    started, losses = time.time(), []
    for step in range(recipe.steps):
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(step, recipe.steps, recipe.warmup, recipe.learning_rate)
        losses.append(
            _step(unet, bank, text=text, empty=empty, recipe=recipe, alphas=alphas, generator=generator, device=device)
        )
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        decay = min(recipe.ema, (step + 1) / (step + 10))
        with torch.no_grad():
            torch._foreach_lerp_(list(average.parameters()), list(unet.parameters()), 1 - decay)
        if step % 100 == 99:
            print(
                f"denoiser {step + 1}/{recipe.steps} loss {np.mean(losses[-100:]):.4f} {time.time() - started:.0f}s",
                flush=True,
            )
        if every:
            every(step + 1, average)
    return average


def _step(unet, bank, text, empty, recipe, alphas, generator, device) -> float:
    chosen = torch.randint(len(bank.latents), (recipe.batch,), generator=generator)
    ids = bank.ids[chosen].clone()
    ids[torch.rand(recipe.batch, generator=generator) < recipe.unconditional] = torch.tensor(empty)
    timestep = torch.randint(1000, (recipe.batch,), generator=generator).to(device)
    clean = bank.latents[chosen].to(device)
    noise = torch.randn(clean.shape, generator=generator).to(device)
    alpha = alphas[timestep].view(-1, 1, 1, 1)
    noisy = alpha.sqrt() * clean + (1 - alpha).sqrt() * noise
    with torch.autocast(device, torch.bfloat16):
        predicted = unet(noisy, timestep, context=text(ids).to(device))
    snr = (alpha / (1 - alpha)).flatten()
    weight = snr.clamp(max=recipe.min_snr) / snr
    loss = ((predicted.float() - noise).square().mean((1, 2, 3)) * weight).mean()
    loss.backward()
    torch.nn.utils.clip_grad_norm_(unet.parameters(), 1.0)
    return loss.item()
