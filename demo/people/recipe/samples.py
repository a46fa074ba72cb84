"""Pictures of fixed prompts. `python run.py bench pretrain samples` draws those of the committed weights."""

from __future__ import annotations

import argparse
from itertools import pairwise
from pathlib import Path

import torch
from comfy.ldm.modules.diffusionmodules.openaimodel import UNetModel
from comfy.taesd.taesd import TAESD
from PIL import Image, ImageDraw

from demo.people.recipe.autoencoder import LATENT_SCALE
from demo.people.recipe.denoiser import alphas_cumprod
from demo.people.recipe.latents import Tokenizer
from demo.people.recipe.layout import stored_autoencoder, stored_unet
from demo.people.recipe.stages import half_precision
from demo.text_encoder import FastTextEncoder, text_encoder_state

ALONE = (
    "a smiling toonhead woman with long straight red hair and light skin in a green t-shirt on a blue background",
    "an angry toonhead man with spiky black hair, brown skin and a beard in a red shirt on a yellow background",
    "a laughing toonhead woman with a big blond bun in a purple turtleneck on a white background",
    "a smiling personas man with short brown hair in a fade and glasses in a blue shirt on a pink background",
    "a sad personas woman with pink pigtails and dark skin in a yellow shirt on a green background",
    "a laughing personas woman with big curly blue hair and sunglasses in a red shirt on a gray background",
    "a smiling micah woman with long wavy red hair and round glasses in a blue sweater on an orange background",
    "a surprised micah man with a bald head, brown skin and a beard in a white shirt on a purple background",
    "a laughing miniavs man with curly black hair and a moustache in an orange t-shirt on a blue background",
    "a laughing miniavs woman with long green hair and round glasses in a pink turtleneck on a white background",
    "a grinning peeps woman with a black afro and tan skin in a purple shirt on a yellow background",
    "a laughing adventurer man with spiky purple hair and light skin on a green background",
    "a glossy cat on a blue background",
    "a flat apple on a yellow background",
    "a glossy fox on a pink background",
    "a flat rocket on a gray background",
)
TOGETHER = (
    "a toonhead woman with long straight red hair on the left and a toonhead man with spiky black hair and a beard on "
    "the right on a blue background",
    "a personas man with a bald head and glasses on the left and a personas woman with pink pigtails on the right on "
    "a green background",
    "a micah man with swept black hair on the left and a micah woman with long wavy blond hair on the right on a white "
    "background",
    "a laughing miniavs woman with long blue hair in a red t-shirt beside a banana on a yellow background",
)


@torch.no_grad()
def sample(
    unet: UNetModel,
    text: FastTextEncoder,
    ids: torch.Tensor,
    empty: torch.Tensor,
    size: tuple[int, int],
    steps: int = 20,
    guidance: float = 4.0,
    seed: int = 0,
) -> torch.Tensor:
    """Deterministic DDIM from pure noise; latents (B, 4, *size)."""
    device = next(unet.parameters()).device
    alphas = alphas_cumprod()
    times = [*torch.linspace(999, 0, steps + 1).long()[:-1].tolist(), -1]
    x = torch.randn(len(ids), 4, *size, generator=torch.Generator().manual_seed(seed)).to(device)
    context = torch.cat([text(ids), text(empty[None]).expand(len(ids), -1, -1)]).to(device)
    for now, after in pairwise(times):
        a, b = alphas[now], alphas[after] if after >= 0 else torch.tensor(1.0)
        with half_precision(device.type):
            both = unet(torch.cat([x, x]), torch.full((2 * len(ids),), now, device=device), context=context)
        cond, uncond = both.float().chunk(2)
        noise = uncond + guidance * (cond - uncond)
        clean = (x - (1 - a).sqrt() * noise) / a.sqrt()
        x = b.sqrt() * clean + (1 - b).sqrt() * noise
    return x.cpu()


@torch.no_grad()
def pictures(vae: TAESD, latents: torch.Tensor) -> list[Image.Image]:
    decoded = ((vae.decode(latents / LATENT_SCALE) + 1) * 127.5).round().clamp(0, 255).byte()
    return [Image.fromarray(picture) for picture in decoded.permute(0, 2, 3, 1).numpy()]


def grid(rows: list[list[Image.Image]], gap: int = 4) -> Image.Image:
    width = max(sum(picture.width + gap for picture in row) for row in rows)
    sheet = Image.new("RGB", (width, sum(row[0].height + gap for row in rows)), "white")
    top = 0
    for row in rows:
        left = 0
        for picture in row:
            sheet.paste(picture, (left, top))
            left += picture.width + gap
        top += row[0].height + gap
    return sheet


def sample_grid(unet: UNetModel, vae: TAESD, text: FastTextEncoder, path: Path, label: str = "") -> None:
    """Sixteen prompts at 128 x 128 and four at 160 x 128."""
    tokenize = Tokenizer()
    empty = torch.tensor(tokenize(""))
    shown = []
    for prompts, size in ((ALONE, (16, 16)), (TOGETHER, (16, 20))):
        ids = torch.tensor([tokenize(prompt) for prompt in prompts])
        shown += pictures(vae, sample(unet, text, ids, empty, size))
    sheet = grid([shown[:8], shown[8:16], shown[16:]])
    ImageDraw.Draw(sheet).text((700, 270), label, fill="black")
    partial = path.with_suffix(".part.png")
    sheet.save(partial, optimize=True)
    partial.replace(path)


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("docs") / "base_grid.png")
    options = parser.parse_args(arguments)
    text = FastTextEncoder(text_encoder_state())
    sample_grid(stored_unet().eval(), stored_autoencoder().eval(), text, options.out)
