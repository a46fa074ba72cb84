"""What users of trainers in graphs miss most, one promise of ours each; no other trainer is run here.

Others have their tests elsewhere. In test_training.py: masks in the loss, previews, saving on interrupt, a loss that
explodes ("diverging"). In test_runs.py: resuming with optimizer state. In test_memory.py: running out of memory. In
test_text_training.py: text encoders, prior preservation. In test_any_model.py: the loss in the units of the model's own
output. In tests/core: several sizes in a batch; what schedules, averages and caption dropout do in detail. The train
benchmark runs the built-in trainer beside ours, for time and memory.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import comfy.utils
import pytest
import torch
from blocklora.blocklora_core.concept.concept import Concept
from blocklora.blocklora_core.files.io import load, save
from blocklora.blocklora_core.host.train.pictures import make_dataset
from blocklora.blocklora_core.host.train.train import TrainJob, TrainResult, train_concept
from blocklora.blocklora_core.host.weights.autograd import training_mode
from blocklora.blocklora_core.reports.curves import loss_curve
from blocklora.blocklora_core.training.data.captions import CaptionRules
from blocklora.blocklora_core.training.loop import Trainer
from blocklora.blocklora_core.training.prompts import ConceptPrompts

from tests.host.test_training import CONFIG, SLOT, equal, train
from tests.host.tiny import Base


def dataset(base: Base, images: list[torch.Tensor]) -> Any:
    with training_mode():
        return make_dataset(base.vae, base.model, images, ["a man"], [], "<ada>", "man", 512, 2, CaptionRules())


@pytest.fixture(scope="module")
def plain(base: Base) -> TrainResult:
    return train(base)


def test_the_seed_alone_decides(base: Base, plain: TrainResult) -> None:
    """Not torch's own generator, which other nodes draw from as well."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(12345)
        again = train(base)
        drawn = torch.rand(1)
        torch.manual_seed(12345)
        assert torch.equal(drawn, torch.rand(1)), "a training leaves torch's own generator alone"
    assert again.losses == plain.losses and equal(again.lora, plain.lora)


@pytest.mark.parametrize(
    "changes",
    [
        {"scheduler": "constant"},
        {"warmup_steps": 2},
        {"ema_decay": 0.9},
        {"accumulation": 2},
        {"weighting": "min_snr"},
        {"layers": "attention + feed-forward"},
    ],
    ids=lambda changes: next(iter(changes)),
)
def test_controls_reach_the_run(base: Base, plain: TrainResult, changes: dict[str, Any]) -> None:
    result = train(base, **changes)
    assert any(not torch.equal(layer.up, result.lora.layers[name].up) for name, layer in plain.lora.layers.items())


def test_captions_can_be_dropped(base: Base, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []
    encode = ConceptPrompts.encode

    def watch(self: ConceptPrompts, captions: Sequence[str]) -> Any:
        asked.extend(captions)
        return encode(self, captions)

    monkeypatch.setattr(ConceptPrompts, "encode", watch)
    random = torch.Generator().manual_seed(0)
    images = [torch.rand(1, 64, 64, 3, generator=random) for _ in range(2)]
    config = CONFIG.changed(steps=2, niche_weight=0.0, captions=CaptionRules(dropout=1.0))
    with torch.inference_mode():
        train_concept(base.model, base.clip, base.vae, TrainJob(Concept("<ada>"), images, ("a person",), config, SLOT))
    # The first is asked for the estimate of the memory, before any step.
    assert asked[1:5] == [""] * 4


def test_the_learning_rate_falls(base: Base, monkeypatch: pytest.MonkeyPatch) -> None:
    rates: list[float] = []
    update = Trainer._update

    def watch(self: Trainer) -> None:
        update(self)
        rates.append(self.learner.optimizer.param_groups[0]["lr"])

    monkeypatch.setattr(Trainer, "_update", watch)
    train(base, learning_rate=0.01)
    assert rates == sorted(rates, reverse=True) and len(set(rates)) == 3 and rates[0] <= 0.01


def test_a_concept_has_a_token_that_learns(base: Base, plain: TrainResult) -> None:
    idle = train(base, embedding_learning_rate=0.0)
    assert plain.lora.embeddings["clip_l"].shape == idle.lora.embeddings["clip_l"].shape
    assert bool((plain.lora.embeddings["clip_l"] != idle.lora.embeddings["clip_l"]).any(1).all()), "both vectors learn"


@pytest.mark.parametrize("name", ["hero.safetensors", "my_7_steps_hero.safetensors"])
def test_a_file_says_itself_how_it_was_trained_whatever_its_name(plain: TrainResult, name: str, tmp_path: Path) -> None:
    lora = load(save(tmp_path / name, plain.lora))
    assert lora.training["steps_done"] == 3
    for key in ("rank", "seed", "learning_rate", "batch_size"):
        assert lora.training[key] == CONFIG.flat()[key]
    assert (lora.concept, lora.base, lora.slot) == (plain.lora.concept, plain.lora.base, SLOT)


def test_pictures_of_every_size_come_in_the_models_own_units(base: Base) -> None:
    random = torch.Generator().manual_seed(0)
    images = [torch.rand(1, 64, side, 3, generator=random) for side in (64, 80, 96)]
    for image, example in zip(images, dataset(base, images).examples, strict=True):
        with torch.inference_mode():
            expected = base.model.model.process_latent_in(base.vae.encode(image))[0]
        torch.testing.assert_close(example.latents, expected.float())


def test_one_batch_is_as_good_as_a_list(base: Base) -> None:
    images = torch.rand(3, 64, 64, 3, generator=torch.Generator().manual_seed(0))
    batched, listed = dataset(base, [images]), dataset(base, [image[None] for image in images])
    assert len(batched) == 3
    for a, b in zip(batched.examples, listed.examples, strict=True):
        torch.testing.assert_close(a.latents, b.latents)


def test_only_the_chosen_linears_get_an_adapter(base: Base) -> None:
    attention = train(base, layers="attention").lora.layers
    both = train(base, layers="attention + feed-forward").lora.layers
    assert set(attention) < set(both)
    assert all("attn" in stem for stem in attention)
    assert all("attn" in stem or "_ff_" in stem for stem in both)


@pytest.mark.parametrize("accumulation", [1, 2])
def test_the_progress_bar_ends_full(base: Base, monkeypatch: pytest.MonkeyPatch, accumulation: int) -> None:
    seen: list[tuple[int, int]] = []
    monkeypatch.setattr(comfy.utils, "PROGRESS_BAR_HOOK", lambda value, total, *_, **__: seen.append((value, total)))
    train(base, steps=3, accumulation=accumulation)
    assert seen == [(1, 3), (2, 3), (3, 3)]


def test_a_single_step_and_a_flat_loss_still_plot(base: Base) -> None:
    result = train(base, steps=1)
    assert len(result.losses) == 1
    for losses in (result.losses, [], [0.0], [0.5] * 4):
        assert loss_curve(losses, max(1, len(losses)), "<ada>").size[0] > 0


def test_the_loss_does_not_swing_by_orders_of_magnitude(base: Base) -> None:
    random = torch.Generator().manual_seed(0)
    images = [torch.rand(1, 64, 64, 3, generator=random) for _ in range(4)]
    config = CONFIG.changed(steps=12, batch_size=1, learning_rate=0.0, niche_weight=0.0)
    job = TrainJob(Concept("<ada>", "person"), images, ("a person",), config, SLOT, precision="fp32")
    with torch.inference_mode():
        losses = train_concept(base.model, base.clip, base.vae, job).losses
    assert max(losses) < 10 * min(losses)
