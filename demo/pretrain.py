"""The recipe of the base model, start to end: `python run.py bench pretrain`.

Stages are kept in the work folder, so an interrupted run goes on where it stopped: autoencoder, scenes, denoiser.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import tarfile
import time
from itertools import pairwise
from pathlib import Path

import torch
from comfy.sd1_clip import SDTokenizer
from comfy.taesd.taesd import TAESD

from demo.art import BACKGROUNDS, SIZE, Sprites
from demo.autoencoder import AutoencoderRecipe, train_autoencoder
from demo.base import UNET, VAE, WEIGHTS, write_weights
from demo.denoiser import DenoiserRecipe, alphas_cumprod, build_bank, train_denoiser
from demo.text_encoder import FastTextEncoder, text_encoder_state

ART = {"google": "emoji-datasource-google@16.0.0", "twitter": "emoji-datasource-twitter@16.0.0"}
SAMPLE_PROMPTS = [f"a {word} on a {ground} background" for word, ground in zip(
    ("cat", "tiger", "panda", "penguin", "man", "princess", "santa", "robot", "policeman", "apple", "pizza",
     "sunflower", "star", "rocket", "snowman", "heart"), tuple(BACKGROUNDS) * 4, strict=False)]  # fmt: skip


def fetch_art(folder: Path) -> Path:
    """Unpack both emoji packages with the npm client, once."""
    for vendor, package in ART.items():
        if (folder / vendor / "package" / "emoji.json").is_file():
            continue
        folder.mkdir(parents=True, exist_ok=True)
        print(f"fetching {package}", flush=True)
        packed = subprocess.run(
            ["npm", "pack", package, "--json"], cwd=folder, check=True, capture_output=True, text=True
        )
        with tarfile.open(folder / json.loads(packed.stdout)[0]["filename"]) as archive:
            wanted = [
                m for m in archive.getmembers() if f"/img/{vendor}/64/" in m.name or m.name.endswith("emoji.json")
            ]
            archive.extractall(folder / vendor, members=wanted, filter="data")
    return folder


class Tokenizer:
    """Prompt -> 77 token ids, as ComfyUI's SD1.5 tokenizer gives them."""

    def __init__(self) -> None:
        self.tokenizer = SDTokenizer()

    def __call__(self, text: str) -> list[int]:
        return [token for token, _ in self.tokenizer.tokenize_with_weights(text)[0]]


@torch.no_grad()
def sample(
    unet,
    text: FastTextEncoder,
    ids: torch.Tensor,
    empty: list[int],
    steps: int = 20,
    cfg: float = 4.0,
    seed: int = 0,
):
    """Deterministic DDIM from pure noise; latents (B, 4, SIZE / 8, SIZE / 8)."""
    alphas = alphas_cumprod()
    times = [*torch.linspace(999, 0, steps + 1).long()[:-1].tolist(), -1]
    x = torch.randn(len(ids), 4, SIZE // 8, SIZE // 8, generator=torch.Generator().manual_seed(seed))
    context = torch.cat([text(ids), text(torch.tensor([empty])).expand(len(ids), -1, -1)])
    for now, after in pairwise(times):
        a, b = alphas[now], alphas[after] if after >= 0 else torch.tensor(1.0)
        cond, uncond = unet(torch.cat([x, x]), torch.full((2 * len(ids),), now), context=context).chunk(2)
        noise = uncond + cfg * (cond - uncond)
        clean = (x - (1 - a).sqrt() * noise) / a.sqrt()
        x = b.sqrt() * clean + (1 - b).sqrt() * noise
    return x


def save_grid(vae: TAESD, latents: torch.Tensor, path: Path, columns: int = 8) -> None:
    from PIL import Image

    with torch.no_grad():
        pictures = ((vae.decode(latents / 0.18215) + 1) * 127.5).clamp(0, 255).byte().permute(0, 2, 3, 1).numpy()
    rows = (len(pictures) + columns - 1) // columns
    sheet = Image.new("RGB", (columns * 128, rows * 128))
    for i, picture in enumerate(pictures):
        sheet.paste(
            Image.fromarray(picture).resize((128, 128), Image.Resampling.LANCZOS),
            (i % columns * 128, i // columns * 128),
        )
    sheet.save(path)


def _autoencoder(work: Path, sprites: Sprites, recipe: AutoencoderRecipe, device: str) -> TAESD:
    path = work / "autoencoder.pt"
    if path.is_file():
        vae = TAESD()
        vae.load_state_dict(torch.load(path, weights_only=True))
        return vae.to(device)
    vae = train_autoencoder(sprites, recipe, device)
    torch.save(vae.state_dict(), path)
    return vae


def run(
    work: Path, autoencoder: AutoencoderRecipe, denoiser: DenoiserRecipe, device: str, output: Path
) -> dict[str, float]:
    work.mkdir(parents=True, exist_ok=True)
    started = time.time()
    sprites = Sprites(fetch_art(work / "art"))
    vae = _autoencoder(work, sprites, autoencoder, device).eval()
    vae_done = time.time()
    tokenize, text = Tokenizer(), FastTextEncoder(text_encoder_state())
    empty = tokenize("")
    bank = build_bank(sprites, vae, tokenize, denoiser, device)
    bank_done = time.time()
    prompts = torch.tensor([tokenize(prompt) for prompt in SAMPLE_PROMPTS])

    def every(step: int, average) -> None:
        if step % 500 == 0:
            torch.save(average.state_dict(), work / "denoiser.pt")
            save_grid(
                vae.cpu(),
                sample(average.float().cpu(), text, prompts, empty),
                work / f"samples_{step:05d}.png",
            )
            average.to(device)

    average = train_denoiser(bank, text=text, empty=empty, recipe=denoiser, device=device, every=every)
    state = {UNET + name: tensor for name, tensor in average.state_dict().items()}
    state |= {VAE + name: tensor for name, tensor in vae.state_dict().items()}
    write_weights(state, output)
    finished = time.time()
    return {
        "autoencoder_seconds": vae_done - started,
        "scenes_seconds": bank_done - vae_done,
        "denoiser_seconds": finished - bank_done,
        "megabytes": output.stat().st_size / 1e6,
    }


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=Path, default=Path(".comfyui") / "pretrain")
    parser.add_argument("--output", type=Path, default=WEIGHTS)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--autoencoder-steps", type=int, default=AutoencoderRecipe.steps)
    parser.add_argument("--denoiser-steps", type=int, default=DenoiserRecipe.steps)
    options = parser.parse_args(arguments)
    seconds = run(
        options.work,
        AutoencoderRecipe(steps=options.autoencoder_steps),
        DenoiserRecipe(steps=options.denoiser_steps),
        options.device,
        options.output,
    )
    print(json.dumps(seconds))
