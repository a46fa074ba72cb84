"""The recipe of the people's base, start to end, in as many sittings as it takes.

Every stage keeps its state in the work folder and goes on from there: corpus, autoencoder, latents, denoiser. Without
a work folder, training goes on from the committed weights, with a new optimizer.
"""

from __future__ import annotations

import argparse
import shutil
import time
from pathlib import Path

import torch
from comfy.ldm.modules.diffusionmodules.openaimodel import UNetModel
from comfy.taesd.taesd import TAESD

from demo.base import WEIGHTS, write_weights
from demo.people.corpus import build, prepare_renderer, read_records
from demo.people.recipe.autoencoder import (
    AutoencoderRecipe,
    fit_scale,
    load_pictures,
    psnr,
    train_autoencoder,
)
from demo.people.recipe.denoiser import Batches, DenoiserRecipe, Trainee, resume, train_denoiser
from demo.people.recipe.latents import Bucket, Tokenizer, encode_corpus, load_buckets
from demo.people.recipe.layout import new_autoencoder, new_unet, stored_autoencoder, stored_unet, whole_state
from demo.people.recipe.samples import sample_grid
from demo.people.recipe.stages import save_state
from demo.text_encoder import FastTextEncoder, text_encoder_state

# Folder: pool, seed, scenes, scale. The large pictures and the held-out ones are for the autoencoder.
CORPORA = {
    "train": ("training", 3, 12000, 1.0),
    "large": ("training", 2, 1200, 2.0),
    "held": ("unseen_people", 7, 256, 1.0),
}
AUTOENCODER_PICTURES = {"large": 1200, "train": 2500}
PSNR_PICTURES = 64


def corpora(work: Path, scenes: int) -> None:
    """Draw what is missing; more scenes to train on add to those that are there."""
    counts = {name: scenes if name == "train" else count for name, (_, _, count, _) in CORPORA.items()}
    missing = {name: count for name, count in counts.items() if not (work / name / f"drawn_{count}").is_file()}
    if not missing:
        return
    renderer = prepare_renderer(work / "node")
    for name, count in missing.items():
        pool, seed, _, scale = CORPORA[name]
        print(f"drawing {count} pictures: {name}", flush=True)
        build(work / name, pool, seed, count, renderer, scale)
        (work / name / f"drawn_{count}").touch()


def _train_autoencoder(work: Path, vae: TAESD, recipe: AutoencoderRecipe, name: str, device: str) -> TAESD:
    """Train on, keep the result as the work folder's autoencoder, and forget latents that it would not give."""
    pictures = []
    for folder, limit in AUTOENCODER_PICTURES.items():
        pictures += load_pictures(work / folder / "pictures", limit)
    state_file = work / f"{name}.state"
    train_autoencoder(vae, pictures, recipe, state_file, device)
    if not recipe.decoder_only:
        fit_scale(vae.cpu(), pictures[-64:])
        shutil.rmtree(work / "latents", ignore_errors=True)
    save_state(vae.state_dict(), work / "autoencoder.pt")
    state_file.unlink()
    held = load_pictures(work / "held" / "pictures", PSNR_PICTURES)
    print(f"{name}: {psnr(vae.cpu(), held):.2f} dB on {len(held)} held-out pictures", flush=True)
    return vae


def autoencoder(work: Path, recipe: AutoencoderRecipe, refine: AutoencoderRecipe | None, device: str) -> TAESD:
    """The work folder's, or else the committed one, or else a new one; refined if asked."""
    path = work / "autoencoder.pt"
    vae = stored_autoencoder() if WEIGHTS.is_file() else new_autoencoder()
    if path.is_file():
        vae.load_state_dict(torch.load(path, weights_only=True))
    elif not WEIGHTS.is_file():
        vae = _train_autoencoder(work, vae, recipe, "autoencoder", device)
    if refine:
        vae = _train_autoencoder(work, vae, refine, "refined", device)
    return vae.to(device).eval()


def latents(work: Path, vae: TAESD, scenes: int, device: str) -> list[Bucket]:
    records = read_records(work / "train" / "scenes.jsonl")[:scenes]
    encode_corpus(records, work / "train" / "pictures", vae, Tokenizer(), work / "latents", device)
    return load_buckets(work / "latents")


def denoiser(
    work: Path, vae: TAESD, buckets: list[Bucket], recipe: DenoiserRecipe, chosen: argparse.Namespace
) -> UNetModel:
    """One sitting; at its end the fixed prompts are drawn into the work folder, if wanted."""
    text = FastTextEncoder(text_encoder_state())
    state_file = work / "denoiser.state"
    start = new_unet if chosen.anew or not WEIGHTS.is_file() else stored_unet
    trainee = resume(start, recipe, state_file, chosen.device)
    deadline = time.monotonic() + chosen.minutes * 60

    def until(trainee: Trainee) -> bool:
        fallen = bool(recipe.fall_steps) and trainee.step >= recipe.fall_from + recipe.fall_steps
        return fallen or time.monotonic() > deadline

    batches = Batches(buckets, text, Tokenizer()(""), recipe)
    train_denoiser(trainee, batches, recipe, state_file, until, chosen.device)
    if not chosen.no_samples:
        sample_grid(trainee.average, vae.cpu(), text, work / f"samples_{trainee.step:06d}.png", f"step {trainee.step}")
    return trainee.average


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=Path, default=Path(".comfyui") / "people")
    parser.add_argument("--minutes", type=float, default=60.0, help="length of this sitting of the denoiser")
    parser.add_argument("--batch", type=int, default=DenoiserRecipe.batch)
    parser.add_argument("--learning-rate", type=float, default=DenoiserRecipe.learning_rate)
    parser.add_argument(
        "--anew", action="store_true", help="begin the denoiser from nothing, not from the committed one"
    )
    parser.add_argument("--fall-from", type=int, default=0, help="step at which the learning rate starts to fall")
    parser.add_argument("--fall-steps", type=int, default=0, help="steps until the rate is nothing; then it ends")
    parser.add_argument("--autoencoder-steps", type=int, default=AutoencoderRecipe.steps)
    parser.add_argument("--refine", type=int, default=0, help="train the autoencoder this many more steps first")
    parser.add_argument("--decoder-only", action="store_true", help="refine the decoder, so that latents stay valid")
    parser.add_argument(
        "--scenes", type=int, default=CORPORA["train"][2], help="how many pictures to draw and to learn from"
    )
    parser.add_argument("--no-samples", action="store_true", help="do not draw the fixed prompts at the end")
    parser.add_argument("--output", type=Path, help="write the weights here at the end of the sitting")
    parser.add_argument("--threads", type=int, help="of the processor; torch decides if not given")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    options = parser.parse_args(arguments)
    if options.threads:
        torch.set_num_threads(options.threads)
    options.work.mkdir(parents=True, exist_ok=True)
    corpora(options.work, options.scenes)
    refine = AutoencoderRecipe(steps=options.refine, decoder_only=options.decoder_only) if options.refine else None
    recipe = AutoencoderRecipe(steps=options.autoencoder_steps)
    vae = autoencoder(options.work, recipe, refine, options.device)
    buckets = latents(options.work, vae, options.scenes, options.device)
    denoiser_recipe = DenoiserRecipe(
        batch=options.batch,
        learning_rate=options.learning_rate,
        fall_from=options.fall_from,
        fall_steps=options.fall_steps,
    )
    average = denoiser(options.work, vae, buckets, denoiser_recipe, options)
    if options.output:
        write_weights(whole_state(average.state_dict(), vae), options.output)
        print(f"{options.output.name}: {options.output.stat().st_size / 1e6:.1f} MB", flush=True)
