"""Quantised bases train, collect and merge as others do."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import comfy.model_management
import pytest
import torch
from blocklora.blocklora_core.concept.concept import Concept
from blocklora.blocklora_core.files.io import load, save
from blocklora.blocklora_core.host.train.collect import CollectJob, collect
from blocklora.blocklora_core.host.train.train import TrainJob, train_concept
from blocklora.blocklora_core.host.weights.names import model_weights
from blocklora.blocklora_core.host.weights.patching import apply_merge
from blocklora.blocklora_core.merge.methods.fused import needs_grams
from blocklora.blocklora_core.training import TrainConfig
from blocklora.blocklora_core.training.quantised import stored
from torch import nn

import nodes
from tests.host.architectures import Vae, build, latents_of
from tests.host.dynamic import WANTED
from tests.host.encoders import encoder_of
from tests.host.quantised import FORMATS, packed, quantised
from tests.host.tiny import patched

CONFIG = TrainConfig.of(
    steps=2, batch_size=1, rank=2, niche_weight=0.0, gram_pictures=1, gram_steps=2, preview_every=0, learning_rate=0.01,
    slot=2, token="none",
)  # fmt: skip
BASES: dict[str, Callable[[str], Any]] = {kind: partial(quantised, kind=kind) for kind in FORMATS} | {"packed": packed}


def job(name: str, **changes: Any) -> TrainJob:
    side = latents_of(name)[-1] * 8
    pictures = [torch.rand(1, side, side, 3, generator=torch.Generator().manual_seed(at)) for at in range(2)]
    config = CONFIG.changed(**changes)
    return TrainJob(
        Concept("<ada>", "man"), pictures, ["a <ada>", "an <ada> in a garden"], config, 2, side, "all linear", "fp32",
        again=True, resume=False,
    )  # fmt: skip


def bytes_of(model: Any) -> dict[str, torch.Tensor]:
    weights = model.model.diffusion_model.named_parameters()
    return {f"{at} {number}": part.clone() for at, weight in weights for number, part in enumerate(stored(weight))}


@pytest.mark.parametrize("kind", BASES)
@pytest.mark.parametrize("name", ["flux", "sd15"])
def test_trains_and_collects_on_a_quantised_base_and_leaves_it(name: str, kind: str) -> None:
    with torch.inference_mode():
        model, clip = BASES[kind](name), encoder_of(name)
        before = bytes_of(model)
        result = train_concept(model, clip, Vae(name), job(name))
        assert len(result.lora.layers) == sum(isinstance(one, nn.Linear) for one in build(name).model.modules())
        assert all(bool(layer.up.any()) for layer in result.lora.layers.values()), "every layer learns"
        kept = [*bytes_of(model).values(), *clip.cond_stage_model.parameters()]
        size = sum(one.numel() * one.element_size() for one in kept)
        # Dynamic VRAM lends whole pages.
        assert result.memory and result.memory.model == pytest.approx(size, rel=0.1 if WANTED else 0)
        bare = dataclasses.replace(result.lora, grams=None)
        grams = (
            collect(model, clip, (bare,), CollectJob(["a {concept}"], 1, 2, latents_of(name)[-1] * 8)).stack[0].grams
        )
        assert grams is not None and grams.covers(needs_grams(result.lora))
    if WANTED:  # Layers of a few kilobytes are quantised anew for a load, and come back with its end.
        comfy.model_management.unload_all_models()
    after = bytes_of(model)
    assert before.keys() == after.keys() and all(torch.equal(before[at].cpu(), after[at].cpu()) for at in before)


@pytest.mark.parametrize("kind", FORMATS)
def test_a_merge_into_a_quantised_base_is_the_stock_loader_s(kind: str, folders: Path) -> None:
    model = quantised("flux", kind)
    lora = train_concept(model, encoder_of("flux"), Vae("flux"), job("flux")).lora
    path = save(folders / "models" / "loras" / "ada.safetensors", lora, dtype=torch.float32)
    stock, _ = nodes.LoraLoader().load_lora(model, None, path.name, 1.0, 1.0)
    before, theirs, ours = patched(model), patched(stock), patched(apply_merge((load(path),), model, None).model)
    changed = [at for at in before if not torch.equal(_plain(before[at]), _plain(theirs[at]))]
    # The same sums in another order: of four bits, rounded by chance, some fall on the other side.
    least = 0.9 if kind == "nvfp4" else 1.0
    assert changed and all(
        float(_plain(ours[at]).isclose(_plain(theirs[at]), rtol=1e-4).float().mean()) >= least for at in before
    )


def _plain(weight: torch.Tensor) -> torch.Tensor:
    return stored(weight)[0].float()


def test_shapes_are_those_of_the_layers_not_of_the_bytes() -> None:
    model = packed("flux")
    shapes = model_weights(model).shapes
    for name, module in model.model.named_modules():
        if hasattr(module, "in_features"):
            assert shapes[f"{name}.weight"] == (module.out_features, module.in_features)
