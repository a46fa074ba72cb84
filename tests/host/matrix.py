"""What the pack does on each architecture: one function a column, "yes", or the text of a refusal.

A wrong number is an AssertionError, whatever else goes wrong goes through: neither is ever a cell.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import comfy.lora
import comfy.sample
import safetensors.torch
import torch
from blocklora.blocklora_core.concept.concept import BlockLoRA, Concept
from blocklora.blocklora_core.concept.keys import is_text
from blocklora.blocklora_core.concept.layer import Layer
from blocklora.blocklora_core.concept.rows import count
from blocklora.blocklora_core.files.io import load, save
from blocklora.blocklora_core.files.record import rows_of
from blocklora.blocklora_core.host.base import base_name
from blocklora.blocklora_core.host.regions.regional import RegionalSampling, _change_of, apply_regions
from blocklora.blocklora_core.host.text.tokens import class_embeddings, encoder_tokenizers
from blocklora.blocklora_core.host.train.collect import CollectJob, collect
from blocklora.blocklora_core.host.train.layers import LAYER_CHOICES
from blocklora.blocklora_core.host.train.train import TrainJob, train_concept
from blocklora.blocklora_core.host.weights.names import model_stems, preferred_stems
from blocklora.blocklora_core.host.weights.patching import Applied, apply_merge
from blocklora.blocklora_core.regions import Box, Region
from blocklora.blocklora_core.training import TrainConfig

import nodes as comfy_nodes
from tests.host.architectures import Vae, build, latents_of
from tests.host.encoders import encoder_of
from tests.host.test_dialects import check_as_stock, combinations, pair
from tests.host.tiny import patched

YES = "yes"
Weights = Mapping[str, torch.Tensor]


@dataclass(frozen=True)
class Subject:
    """One architecture, its tiny model and text side, and a folder for its files."""

    name: str
    folders: Path

    @cached_property
    def model(self) -> Any:
        return build(self.name)

    @cached_property
    def clip(self) -> Any:
        return encoder_of(self.name)

    @property
    def side(self) -> int:
        """Of a picture, in pixels."""
        return latents_of(self.name)[-1] * 8

    @cached_property
    def default(self) -> BlockLoRA:
        """What Train learns with its defaults, but for a few steps; as its file gives it back. ValueError where they
        are refused."""
        return self._trained()

    @cached_property
    def trained(self) -> BlockLoRA:
        """The same, or without a token where that is what is refused."""
        try:
            return self.default
        except ValueError:
            return self._trained(token="none")

    def _trained(self, **changes: Any) -> BlockLoRA:
        random = torch.Generator().manual_seed(0)
        pictures = [torch.rand(1, self.side, self.side, 3, generator=random) for _ in range(2)]
        config = TrainConfig.of(
            steps=3, batch_size=2, gram_pictures=1, gram_steps=2, preview_every=2, preview_steps=1, slot=0,
            niche_negatives=2, learning_rate=0.01, **changes,
        )  # fmt: skip
        job = TrainJob(
            Concept("<ada>", "man"), pictures, ["a photo of <ada>", "<ada> standing in front of an old castle"], config,
            0, self.side, precision="fp32", again=True, resume=False,
        )  # fmt: skip
        with torch.inference_mode():
            lora = train_concept(self.model, self.clip, Vae(self.name), job).lora
        return load(save(self.folders / "models" / "loras" / "ada.safetensors", lora, dtype=torch.float32))

    @cached_property
    def before(self) -> Weights:
        return patched(self.model)

    @cached_property
    def merged(self) -> Applied:
        return apply_merge((self.trained,), self.model, self.clip, "per_row")

    @cached_property
    def after(self) -> Weights:
        return patched(self.merged.model)

    def encoded(self, text: str, clip: Any = None) -> Any:
        """The host's CONDITIONING."""
        clip = clip or self.clip
        with torch.inference_mode():
            return clip.encode_from_tokens_scheduled(clip.tokenize(text))

    @torch.inference_mode()
    def sampled(self, model: Any, positive: Any) -> torch.Tensor:
        """By the host's sampler."""
        noise = torch.randn((1, *latents_of(self.name)), generator=torch.Generator().manual_seed(5))
        found: torch.Tensor = comfy.sample.sample(
            model, noise, 2, 3.0, "euler", "normal", positive, self.encoded("a dog"), torch.zeros_like(noise), seed=5,
            disable_pbar=True,
        )  # fmt: skip
        return found


def near(found: torch.Tensor, expected: torch.Tensor, share: float = 1e-4) -> bool:
    """Whether they differ by no more than a share of the largest number."""
    return bool(found.isfinite().all()) and float((found - expected).abs().max()) <= share * float(expected.abs().max())


def train(subject: Subject) -> str:
    """Every layer that the model's prediction depends on has learnt."""
    lora = subject.default
    idle = [stem for stem, layer in lora.layers.items() if not layer.up.any()]
    assert all(bool(layer.up.isfinite().all()) for layer in lora.layers.values())
    assert len(idle) < len(lora.layers) / 4
    prompt, stems = subject.encoded("a man"), model_stems(subject.model)
    expected = subject.sampled(subject.model, prompt)
    for stem in idle:
        nudged = subject.model.clone()
        nudged.add_patches({stems[stem]: ("diff", (torch.ones_like(subject.before[stems[stem]]),))})
        assert torch.equal(subject.sampled(nudged, prompt), expected), f"{stem} counts, and has not learnt"
    assert lora.grams is not None and lora.grams.covers(lora.layers)
    return YES


def merge(subject: Subject) -> str:
    """Each weight is its own plus scale * up @ down, in its slot's rows; no other weight moves."""
    stems = model_stems(subject.model)
    changed = {stems[stem]: layer for stem, layer in subject.trained.layers.items()}
    assert subject.merged.model_layers == len(changed) and subject.merged.unused == {}
    for name, weight in subject.before.items():
        expected = weight + changed[name].dense().reshape(weight.shape) if name in changed else weight
        torch.testing.assert_close(subject.after[name], expected, rtol=1e-5, atol=1e-6, equal_nan=True)
    prompt = subject.encoded("a photo of a man")
    ours, plain = (subject.sampled(model, prompt) for model in (subject.merged.model, subject.model))
    assert bool(ours.isfinite().all()) and not torch.equal(ours, plain)
    return YES


def stock(subject: Subject) -> str:
    """ComfyUI's Load LoRA makes the same weights of the file."""
    subject.trained  # noqa: B018 - writes the file
    model, _ = comfy_nodes.LoraLoader().load_lora(subject.model, subject.clip, "ada.safetensors", 1.0, 1.0)
    theirs = patched(model)
    for name, weight in subject.after.items():
        torch.testing.assert_close(weight, theirs[name], rtol=1e-5, atol=1e-6, equal_nan=True)
    return YES


def foreign(subject: Subject) -> str:
    """Files of all names that ComfyUI's loader knows for the model change the weights as it does."""
    tried = combinations(subject.model)
    assert tried
    for stems, spelling in tried:
        tensors = {key: value for stem, shape in stems.items() for key, value in pair(stem, shape, spelling).items()}
        assert check_as_stock(subject.model, tensors, subject.folders).unused == {}
    return YES


def _plain(subject: Subject, name: str, seed: int) -> BlockLoRA:
    """A plain LoRA of another tool on all attention layers."""
    random, shapes, tensors = torch.Generator().manual_seed(seed), subject.before, {}
    for weight, stem in preferred_stems(model_stems(subject.model)).items():
        if shapes[weight].ndim == 2 and LAYER_CHOICES["attention"].wanted(weight):
            m, n = shapes[weight].shape
            tensors[f"{stem}.lora_up.weight"] = torch.randn(m, 2, generator=random) * 0.05
            tensors[f"{stem}.lora_down.weight"] = torch.randn(2, n, generator=random) * 0.05
    path = subject.folders / f"{name}.safetensors"
    safetensors.torch.save_file(tensors, path)
    return load(path)


def _in_slot(lora: BlockLoRA, slot: int) -> BlockLoRA:
    """`lora` without its Grams, its numbers in another slot's rows."""
    layers = {}
    for stem, layer in lora.layers.items():
        rows = rows_of(stem, layer.out_features, lora.scheme, slot, layer.parts)
        up = layer.up.repeat(2, 1)[: count(rows)] * (slot + 1)
        layers[stem] = Layer(up, layer.down.flip(0), rows, layer.out_features, layer.scale, layer.parts)
    return replace(lora.renamed(f"<slot{slot}>"), layers=layers, slot=slot, grams=None, embeddings={})


def fuse(subject: Subject) -> str:
    """Two plain LoRAs, and two row blocks, get Grams of the inputs that the layers really saw, and fuse: each weight is
    its own plus what the solved layers say."""
    for method, stack in {
        "gradient_fusion": [_plain(subject, name, seed) for seed, name in enumerate(("bob", "eve"))],
        "fused": [_in_slot(subject.trained, slot) for slot in (1, 2)],
    }.items():
        seen = _Energy(subject)
        with torch.inference_mode(), seen:
            job = CollectJob(["a {concept}"], 1, 2, subject.side)
            found = collect(subject.model, subject.clip, tuple(stack), job, seen.take)
        for lora in found.stack:
            assert lora.grams is not None and lora.grams.covers(lora.layers), found.notes
            for stem in lora.layers:
                # Some layers are asked only with reference pictures (OmniGen2).
                energy = seen.found[lora.concept.name].get(stem, 0.0)
                assert math.isclose(_trace(lora, stem), energy, rel_tol=0.02), stem
        applied = apply_merge(found.stack, subject.model, subject.clip)
        assert applied.merged.method == method
        after, members = patched(applied.model), applied.merged.members
        for name, weight in subject.before.items():
            change = sum((lora.layers[name].dense() for lora in members if name in lora.layers), torch.zeros(()))
            torch.testing.assert_close(after[name], weight + change, rtol=1e-4, atol=1e-5, equal_nan=True)
    return YES


def _trace(lora: BlockLoRA, stem: str) -> float:
    assert lora.grams is not None
    return float(lora.grams.of(stem).dense().trace())


class _Energy:
    """Mean squared length of what each of the attention's layers is given while a concept's Grams are collected."""

    def __init__(self, subject: Subject):
        modules = dict(subject.model.model.named_modules())
        stems = preferred_stems(model_stems(subject.model)).items()
        self.modules = {
            stem: modules[weight.removesuffix(".weight")]
            for weight, stem in stems
            if LAYER_CHOICES["attention"].wanted(weight)
        }
        self.sums: dict[str, tuple[float, int]] = {}
        self.found: dict[str, dict[str, float]] = {}

    def __enter__(self) -> _Energy:
        self.handles = [
            module.register_forward_pre_hook(lambda _module, inputs, at=stem: self._add(at, inputs[0]))
            for stem, module in self.modules.items()
        ]
        return self

    def _add(self, stem: str, x: torch.Tensor) -> None:
        energy, rows = self.sums.get(stem, (0.0, 0))
        self.sums[stem] = energy + float(x.double().square().sum()), rows + x.numel() // x.shape[-1]

    def take(self, _at: int, lora: BlockLoRA) -> None:
        self.found[lora.concept.name] = {stem: energy / rows for stem, (energy, rows) in self.sums.items()}
        self.sums = {}

    def __exit__(self, *_: object) -> None:
        for handle in self.handles:
            handle.remove()


def regions(subject: Subject) -> str:
    """One region over all is as its prompt alone; one over half is neither that nor as without."""
    base, own = (subject.encoded(text) for text in ("a photo of a dog", "a photo of a man"))
    # Where all prompts go through the model at once, the vector of a whole text is the sampler's.
    one_pass = _change_of(subject.model.model.diffusion_model) is not None
    pooled = {"pooled_output": base[0][1].get("pooled_output")} if one_pass else {}
    alone = [[own[0][0], {**own[0][1], **pooled}]]

    def regional(box: Box) -> torch.Tensor:
        return subject.sampled(apply_regions(subject.model, RegionalSampling((Region(box, own),))), base)

    whole = regional(Box(0, 0, 1, 1))
    half = regional(Box(0, 0, 0.5, 1))
    plain, expected = subject.sampled(subject.model, base), subject.sampled(subject.model, alone)
    effect = float((plain - expected).abs().max())
    assert effect > 0 and float((whole - expected).abs().max()) <= 0.01 * effect + 1e-6
    assert not near(half, expected, 1e-6) and not near(half, plain, 1e-6)
    return YES


def token(subject: Subject) -> str:
    """The token learns in every text encoder, and stock prompts read it in any of ComfyUI's nodes."""
    lora = subject.default
    begun = class_embeddings(subject.clip, "man")
    assert begun and set(lora.embeddings) == set(begun) <= set(encoder_tokenizers(subject.clip))
    for encoder, vectors in begun.items():
        assert float((lora.embeddings[encoder][1] - vectors[0]).abs().max()) > 0.5 * 0.001, f"{encoder}: it learns"
    clip = subject.merged.clip
    other = replace(lora, embeddings={name: -vectors for name, vectors in lora.embeddings.items()})
    turned = apply_merge((other,), subject.model, subject.clip, "per_row").clip
    read, again, plain = (subject.encoded("a photo of <ada>", each)[0][0] for each in (clip, turned, subject.clip))
    assert bool(read.isfinite().all()) and not (read.shape == plain.shape and torch.equal(read, plain))
    assert read.shape == again.shape and not torch.equal(read, again)
    assert not any(is_text(stem) for stem in lora.layers)
    return YES


COLUMNS: dict[str, Callable[[Subject], str]] = {
    "train": train,
    "merge": merge,
    "stock loader": stock,
    "other tools' files": foreign,
    "collect + fuse": fuse,
    "regions": regions,
    "token": token,
}


def cell(column: str, subject: Subject) -> str:
    """ "yes", or why the pack says no, with the model's name left out."""
    try:
        return COLUMNS[column](subject)
    except ValueError as error:
        return " ".join(str(error).split()).replace(base_name(subject.model), "this model")
