"""Training of the people's UNet on cached latents, over as many sittings as it takes."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from comfy.ldm.modules.diffusionmodules.openaimodel import UNetModel

from demo.people.recipe.latents import Bucket
from demo.people.recipe.stages import Clock, half_precision, load_state, save_state
from demo.text_encoder import FastTextEncoder


@dataclass(frozen=True)
class DenoiserRecipe:
    batch: int = 8
    learning_rate: float = 3e-4
    warmup: int = 50
    # The rate is constant, because nobody knows how many sittings follow; the last one lets it fall to nothing.
    fall_from: int = 0
    fall_steps: int = 0
    unconditional: float = 0.1
    min_snr: float = 5.0
    ema: float = 0.999
    seed: int = 1
    checkpoint_seconds: float = 420.0

    def rate(self, step: int) -> float:
        rate = self.learning_rate * min(1.0, (step + 1) / self.warmup)
        if self.fall_steps:
            rate *= min(1.0, max(0.0, 1 - (step - self.fall_from) / self.fall_steps))
        return rate


def alphas_cumprod() -> torch.Tensor:
    """SD1.5's share of the signal in each of 1000 steps."""
    return torch.cumprod(1 - torch.linspace(0.00085**0.5, 0.012**0.5, 1000, dtype=torch.float64) ** 2, 0).float()


def min_snr_loss(predicted: torch.Tensor, noise: torch.Tensor, alpha: torch.Tensor, limit: float) -> torch.Tensor:
    """Squared error of the noise, weighted by min(SNR, limit) / SNR; alpha is (B, 1, 1, 1)."""
    snr = (alpha / (1 - alpha)).flatten()
    return ((predicted.float() - noise).square().mean((1, 2, 3)) * (snr.clamp(max=limit) / snr)).mean()


@dataclass
class Trainee:
    """Everything that a checkpoint holds."""

    unet: UNetModel
    average: UNetModel
    optimizer: torch.optim.Optimizer
    step: int = 0
    seconds: float = 0.0

    def state(self) -> dict[str, Any]:
        return {
            "unet": self.unet.state_dict(),
            "average": self.average.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "step": self.step,
            "seconds": self.seconds,
        }


def resume(start: Callable[[], UNetModel], recipe: DenoiserRecipe, state_file: Path, device: str) -> Trainee:
    state = load_state(state_file)
    unet = start().to(device, memory_format=torch.channels_last).train()  # a tenth less time to a step on a CPU
    average = copy.deepcopy(unet).eval().requires_grad_(False)
    optimizer = torch.optim.AdamW(
        unet.parameters(), lr=recipe.learning_rate, betas=(0.9, 0.99), weight_decay=0.01, fused=True
    )
    trainee = Trainee(unet, average, optimizer)
    if state:
        unet.load_state_dict(state["unet"])
        average.load_state_dict(state["average"])
        trainee.optimizer.load_state_dict(state["optimizer"])
        trainee.step, trainee.seconds = state["step"], state["seconds"]
    return trainee


class Batches:
    """Step -> latents and features; one size to a batch, sizes as often as they occur."""

    def __init__(self, buckets: list[Bucket], text: FastTextEncoder, empty: list[int], recipe: DenoiserRecipe):
        self.buckets, self.text, self.recipe = buckets, text, recipe
        self.empty = torch.tensor(empty)
        self.shares = np.asarray([len(bucket.ids) for bucket in buckets]) / sum(len(b.ids) for b in buckets)

    def __call__(self, step: int) -> tuple[torch.Tensor, torch.Tensor]:
        rng = np.random.RandomState([self.recipe.seed, step])
        bucket = self.buckets[int(rng.choice(len(self.buckets), p=self.shares))]
        chosen = torch.from_numpy(rng.randint(len(bucket.ids), size=self.recipe.batch))
        ids = bucket.ids[chosen].clone()
        ids[torch.from_numpy(rng.rand(self.recipe.batch) < self.recipe.unconditional)] = self.empty
        clean = bucket.latents[chosen].float().contiguous(memory_format=torch.channels_last)
        return clean, self.text(ids)


def _loss(
    trainee: Trainee, clean: torch.Tensor, context: torch.Tensor, recipe: DenoiserRecipe, alphas: torch.Tensor
) -> torch.Tensor:
    torch.manual_seed(recipe.seed * 1_000_003 + trainee.step)
    timestep = torch.randint(1000, (len(clean),), device=clean.device)
    noise = torch.randn_like(clean)
    alpha = alphas[timestep].view(-1, 1, 1, 1)
    noisy = alpha.sqrt() * clean + (1 - alpha).sqrt() * noise
    with half_precision(clean.device.type):
        predicted = trainee.unet(noisy, timestep, context=context)
    return min_snr_loss(predicted, noise, alpha, recipe.min_snr)


def train_step(
    trainee: Trainee, clean: torch.Tensor, context: torch.Tensor, recipe: DenoiserRecipe, alphas: torch.Tensor
) -> float:
    for group in trainee.optimizer.param_groups:
        group["lr"] = recipe.rate(trainee.step)
    loss = _loss(trainee, clean, context, recipe, alphas)
    loss.backward()
    torch.nn.utils.clip_grad_norm_(trainee.unet.parameters(), 1.0)
    trainee.optimizer.step()
    trainee.optimizer.zero_grad(set_to_none=True)
    decay = min(recipe.ema, (trainee.step + 1) / (trainee.step + 10))
    with torch.no_grad():
        torch._foreach_lerp_(list(trainee.average.parameters()), list(trainee.unet.parameters()), 1 - decay)
    trainee.step += 1
    return loss.item()


def train_denoiser(
    trainee: Trainee,
    batches: Batches,
    recipe: DenoiserRecipe,
    state_file: Path,
    until: Callable[[Trainee], bool],
    device: str = "cpu",
) -> UNetModel:
    """Train until told to stop; returns the exponential moving average."""
    alphas = alphas_cumprod().to(device)
    clock, losses = Clock(trainee.seconds, recipe.checkpoint_seconds), []

    def keep() -> None:
        trainee.seconds = clock.seconds()
        save_state(trainee.state(), state_file)

    while not until(trainee):
        clean, context = batches(trainee.step)
        losses.append(train_step(trainee, clean.to(device), context.to(device), recipe, alphas))
        if trainee.step % 25 == 0:
            print(f"denoiser {trainee.step} loss {np.mean(losses[-100:]):.4f} {clock.seconds():.0f}s", flush=True)
        if clock.due():
            keep()
    keep()
    return trainee.average
