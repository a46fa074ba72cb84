"""What the built-in trainer is known to get wrong, one test each, shown right here.

Others of its defects have their tests elsewhere: seeds and interrupts in test_training.py, the objective's units in
test_any_model.py, several sizes in a batch in tests/core/test_training.py.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import comfy.utils
import pytest
import torch
from blocklora.blocklora_core.curves import loss_curve
from blocklora.blocklora_core.host.pictures import make_dataset
from blocklora.blocklora_core.host.train import TrainJob, train_concept
from blocklora.blocklora_core.host.weights import training_mode
from blocklora.blocklora_core.lora import Concept
from blocklora.blocklora_core.training.captions import CaptionRules

from tests.host.test_training import CONFIG, SLOT, train
from tests.host.tiny import Base


def dataset(base: Base, images: list[torch.Tensor]) -> Any:
    with training_mode():
        return make_dataset(base.vae, base.model, images, ["a man"], [], "<ada>", "man", 512, 2, CaptionRules())


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


def test_the_progress_bar_ends_full(base: Base, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[int, int]] = []
    monkeypatch.setattr(comfy.utils, "PROGRESS_BAR_HOOK", lambda value, total, *_, **__: seen.append((value, total)))
    train(base, steps=3)
    assert seen[-1] == (3, 3)


def test_a_single_step_and_a_flat_loss_still_plot(base: Base) -> None:
    result = train(base, steps=1)
    assert len(result.losses) == 1
    for losses in (result.losses, [], [0.0], [0.5] * 4):
        assert loss_curve(losses, max(1, len(losses)), "<ada>").size[0] > 0


def test_the_loss_does_not_swing_by_orders_of_magnitude(base: Base) -> None:
    random = torch.Generator().manual_seed(0)
    images = [torch.rand(1, 64, 64, 3, generator=random) for _ in range(4)]
    config = dataclasses.replace(CONFIG, steps=12, batch_size=1, learning_rate=0.0, niche_weight=0.0)
    job = TrainJob(Concept("<ada>", "person"), images, ("a person",), config, SLOT, precision="fp32")
    with torch.inference_mode():
        losses = train_concept(base.model, base.clip, base.vae, job).losses
    assert max(losses) < 10 * min(losses)
