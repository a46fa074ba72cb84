"""The demo's evaluator: trained by its recipe, and how far it can be trusted. `python run.py bench evaluator`.

Trains it on emoji (about half an hour on one core; --measure takes the committed one), then measures what it has never
seen. Held-out pictures of the fifteen concepts of demo/cast.py, and of sixty, count as the concept that has the nearest
training picture: as they are, after the base's VAE, and with another concept mixed in. Captions with the 40 class words
name emoji scenes and pictures that the demo's base draws. Stages are kept in the work folder, so an
interrupted run goes on where it stopped. Ends in one JSON object.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.common.shared import ROOT, Stopwatch, finish, import_comfyui, say

import_comfyui()

import comfy.sd  # noqa: E402  (ComfyUI is on the path only now)
import comfy.utils  # noqa: E402
import numpy as np  # noqa: E402
import torch  # noqa: E402
import torch.nn.functional as F  # noqa: E402
from torch import Tensor  # noqa: E402

import nodes  # noqa: E402
from blocklora_core.evaluation.confusion import accuracy, nearest  # noqa: E402
from blocklora_core.evaluation.scores import PREFIX, image_alignment, text_alignment  # noqa: E402
from demo.art import BACKGROUNDS, CLASSES, SIZE, Sprites, fetch_art, single_scene  # noqa: E402
from demo.base import write_weights  # noqa: E402
from demo.cast import GROUNDS, ON_GROUNDS, Member, cast  # noqa: E402
from demo.evaluator.model import WEIGHTS, WORDS, DemoEvaluator  # noqa: E402
from demo.evaluator.training import EvaluatorRecipe, Trainer, train_evaluator  # noqa: E402
from demo.prepare import CHECKPOINT  # noqa: E402

STEPS, CFG, SEED, SCENES, KEEP_EVERY = 20, 4.0, 0, 400, 100
THUMB = 12
MIXES = (0.0, 0.1, 0.25, 0.4)
# No step of training draws from this seed.
SCENE_SEED = 2**31
Held = dict[str, tuple[Tensor, Tensor]]
"""Concept -> its training pictures and its held-out ones, (N, SIZE, SIZE, 3) in 0..1."""


class Pixels:
    """What to compare with: a picture's own colours, THUMB x THUMB of them, about grey."""

    def images(self, pictures: Tensor) -> Tensor:
        small = F.interpolate(pictures.movedim(-1, 1), (THUMB, THUMB), mode="bilinear", antialias=True)
        return F.normalize(small.flatten(1) - 0.5, dim=1)


def train(work: Path, emoji: Path, steps: int, weights: Path, words: Path) -> float:
    """Train what is left to train and write the weights; seconds of all steps, also of a run that was stopped."""
    trainer = Trainer(Sprites(fetch_art(emoji)), EvaluatorRecipe(steps=steps))
    kept = work / "evaluator.pt"
    if kept.is_file():
        trainer.load(kept)

    def every(step: int) -> None:
        if step % KEEP_EVERY == 0 or step == steps:
            trainer.save(kept)

    train_evaluator(trainer, every)
    write_weights(trainer.average.state_dict(), weights)
    words.write_text("\n".join(trainer.words) + "\n", encoding="utf-8")
    return trainer.seconds


def as_tensor(pictures: Sequence[Any]) -> Tensor:
    return torch.from_numpy(np.stack([np.asarray(picture) for picture in pictures])).float() / 255


def pictures_of(members: Sequence[Member], art: Path) -> Held:
    return {
        member.name: (as_tensor([picture for picture, _ in member.training(art)]), as_tensor(member.held_out(art)))
        for member in members
    }


def recognised(evaluator: DemoEvaluator | Pixels, known: Held, changed: Callable[[Tensor], Tensor]) -> dict[str, Any]:
    """How well held-out pictures, `changed`, are told apart by what they are trained on."""
    references = {name: evaluator.images(training) for name, (training, _) in known.items()}
    seen = {name: evaluator.images(changed(held)) for name, (_, held) in known.items()}
    found = {name: nearest(vectors, references) for name, vectors in seen.items()}
    own, other = [], []
    for name, vectors in seen.items():
        scores = {at: float(image_alignment(vectors, those).mean()) for at, those in references.items()}
        own.append(scores.pop(name))
        other.append(max(scores.values()))
    taken = sorted({f"{name} as {at}" for name, row in found.items() for at in row if at != name})
    return {
        "accuracy": round(accuracy(found), 4), "pictures": sum(map(len, found.values())),
        "own": round(float(np.mean(own)), 3), "best_other": round(float(np.mean(other)), 3),
        "least_apart": round(min(a - b for a, b in zip(own, other, strict=True)), 3), "taken": taken,
    }  # fmt: skip


def mixed(evaluator: DemoEvaluator, known: Held) -> dict[str, dict[str, float]]:
    """Held-out pictures into which the next concept's are mixed: do scores fall, and how soon is it taken for that?"""
    references = {name: evaluator.images(training) for name, (training, _) in known.items()}
    names, results = list(known), {}
    for share in MIXES:
        found, own = {}, []
        for name, after in zip(names, [*names[1:], names[0]], strict=True):
            held, other = known[name][1], known[after][1]
            vectors = evaluator.images(held * (1 - share) + other[torch.arange(len(held)) % len(other)] * share)
            found[name] = nearest(vectors, references)
            own.append(float(image_alignment(vectors, references[name]).mean()))
        results[f"{share:g}"] = {"accuracy": round(accuracy(found), 4), "own": round(float(np.mean(own)), 3)}
    return results


def grounds_named(evaluator: DemoEvaluator, members: Sequence[Member], known: Held) -> float:
    """Share of held-out pictures on plain grounds whose ground is named rightly by caption, of all five grounds."""
    found = {}
    for member in members:
        if member.prompts != ON_GROUNDS:
            continue
        held = known[member.name][1]
        texts = evaluator.texts([f"{PREFIX}a {member.class_word} on a {ground} background" for ground in BACKGROUNDS])
        named = nearest(evaluator.images(held), dict(zip(BACKGROUNDS, texts[:, None], strict=True)))
        each = len(held) // len(GROUNDS)
        for at, ground in enumerate(GROUNDS):
            found.setdefault(ground, []).extend(named[at * each : (at + 1) * each])
    return accuracy(found)


def told_by_words(evaluator: DemoEvaluator, pictures: Mapping[str, Tensor]) -> dict[str, Any]:
    """Class word -> its pictures: the share whose own caption is nearest, of all the words' captions."""
    words = list(CLASSES)
    texts = evaluator.texts([f"{PREFIX}a {word}" for word in words])
    seen = {word: evaluator.images(those) for word, those in pictures.items()}
    found = {word: nearest(vectors, dict(zip(words, texts[:, None], strict=True))) for word, vectors in seen.items()}
    own = [float(text_alignment(vectors, texts[words.index(word)][None]).mean()) for word, vectors in seen.items()]
    missed = {word: sum(at != word for at in row) for word, row in found.items() if any(at != word for at in row)}
    return {
        "accuracy": round(accuracy(found), 4), "pictures": sum(map(len, found.values())),
        "text_alignment": round(float(np.mean(own)), 3), "missed": missed,
    }  # fmt: skip


def scenes(sprites: Sprites) -> dict[str, Tensor]:
    """Emoji scenes as the base was trained on, by class word."""
    rng = np.random.RandomState(SCENE_SEED)
    drawn = [single_scene(sprites, rng) for _ in range(SCENES)]
    words = [next(word for word in scene.caption.split() if word in CLASSES) for scene in drawn]
    by_word: dict[str, list[Any]] = {word: [] for word in sorted(set(words))}
    for word, scene in zip(words, drawn, strict=True):
        by_word[word].append(scene.pixels)
    return {word: as_tensor(those) for word, those in by_word.items()}


def sample(base: Any, word: str, count: int) -> Tensor:
    """Pictures of a class word as the demo's base draws it, each on another ground."""
    model, clip, vae = base
    encode = nodes.CLIPTextEncode().encode
    shown = []
    for at, ground in zip(range(count), BACKGROUNDS, strict=False):
        positive = encode(clip, f"a {word} on a {ground} background")[0]
        latent = {"samples": torch.zeros(1, 4, SIZE // 8, SIZE // 8)}
        negative, seed = encode(clip, "")[0], SEED + at
        done = nodes.common_ksampler(model, seed, STEPS, CFG, "euler", "normal", positive, negative, latent)[0]
        shown.append(vae.decode(done["samples"]).clamp(0, 1))
    return torch.cat(shown)


def samples(base: Any, count: int, kept: Path) -> dict[str, Tensor]:
    """Pictures of every class word, kept in a file after each word."""
    found: dict[str, Tensor] = torch.load(kept, weights_only=True) if kept.is_file() else {}
    for number, word in enumerate(CLASSES, 1):
        if len(found.get(word, ())) >= count:
            continue
        found[word] = sample(base, word, count).half()
        partial = kept.with_suffix(".part")
        torch.save(found, partial)
        partial.replace(kept)
        say(f"sampled {number}/{len(CLASSES)} {word}")
    return {word: those[:count].float() for word, those in found.items()}


def measure(evaluator: DemoEvaluator, chosen: argparse.Namespace) -> dict[str, Any]:
    base = comfy.sd.load_checkpoint_guess_config(str(chosen.checkpoint))[:3]
    ways: dict[str, Callable[[Tensor], Tensor]] = {
        "": lambda pictures: pictures,
        "_vae": lambda pictures: base[2].decode(base[2].encode(pictures)).clamp(0, 1),
    }
    results: dict[str, Any] = {}
    for count in (15, 60):
        known = pictures_of(cast(count), chosen.art)
        for suffix, changed in ways.items():
            results[f"held_out_{count}{suffix}"] = recognised(evaluator, known, changed)
            say(f"held_out_{count}{suffix}: {results[f'held_out_{count}{suffix}']}")
        results[f"pixels_{count}"] = recognised(Pixels(), known, ways[""])["accuracy"]
    known = pictures_of(cast(), chosen.art)
    results |= {"mixed_15": mixed(evaluator, known), "grounds_15": grounds_named(evaluator, cast(), known)}
    say(f"mixed_15: {results['mixed_15']}, grounds_15: {results['grounds_15']:.3f}")
    results["words_scenes"] = told_by_words(evaluator, scenes(Sprites(fetch_art(chosen.emoji))))
    say(f"words_scenes: {results['words_scenes']}")
    drawn = samples(base, chosen.pictures, chosen.work / "samples.pt")
    results["words_base"] = told_by_words(evaluator, drawn)
    say(f"words_base: {results['words_base']}")
    return results


def main() -> None:
    parser = argparse.ArgumentParser(description="Trains and measures the demo's evaluator.")
    checkpoints = Path(os.environ["BLOCKLORA_COMFYUI"], "models", "checkpoints")
    parser.add_argument("--work", type=Path, default=ROOT / ".comfyui" / "evaluator")
    parser.add_argument("--emoji", type=Path, default=ROOT / ".comfyui" / "pretrain" / "art")
    parser.add_argument("--art", type=Path, default=ROOT / ".comfyui" / "art")
    parser.add_argument("--checkpoint", type=Path, default=checkpoints / CHECKPOINT)
    parser.add_argument("--weights", type=Path, default=WEIGHTS)
    parser.add_argument("--words", type=Path, default=WORDS)
    parser.add_argument("--steps", type=int, default=EvaluatorRecipe.steps)
    parser.add_argument("--pictures", type=int, default=2, help="of each class word, drawn by the base; at most 5")
    parser.add_argument("--measure", action="store_true", help="measure the weights that are there, without training")
    chosen = parser.parse_args()
    chosen.work.mkdir(parents=True, exist_ok=True)
    result: dict[str, Any] = {}
    if not chosen.measure:
        result["train_seconds"] = train(chosen.work, chosen.emoji, chosen.steps, chosen.weights, chosen.words)
    comfy.utils.set_progress_bar_enabled(False)
    clock = Stopwatch()
    with torch.inference_mode():
        result |= measure(DemoEvaluator.load(chosen.weights, chosen.words), chosen)
    finish({**result, "measure_seconds": clock.seconds(), "megabytes": chosen.weights.stat().st_size / 1e6})


if __name__ == "__main__":
    main()
