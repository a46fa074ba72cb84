"""Text encoders that learn with the model, and what else a run can be asked to keep."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import comfy.sd
import comfy.utils
import pytest
import torch
from blocklora.blocklora_core.concept.concept import Concept
from blocklora.blocklora_core.concept.keys import is_text
from blocklora.blocklora_core.concept.rows import index
from blocklora.blocklora_core.files.io import save
from blocklora.blocklora_core.host.train.port import ComfyPort
from blocklora.blocklora_core.host.train.train import TrainJob, TrainResult, train_concept
from blocklora.blocklora_core.host.weights.autograd import training_mode
from blocklora.blocklora_core.host.weights.patching import apply_merge
from blocklora.blocklora_core.training import Conditioning, Dataset, Example, Trainer
from blocklora.blocklora_core.training.regularisers.attention import AttentionRecorder

from tests.host.architectures import build, latents_of
from tests.host.encoders import encoder_of
from tests.host.test_layerwise import encode
from tests.host.test_training import CONFIG, hooks, pictures, train, weights
from tests.host.tiny import TEXT_LAYERS, Base, patched, same


@pytest.fixture(scope="module")
def trained(base: Base) -> TrainResult:
    return train(base, text_learning_rate=0.01, learning_rate=0.01, steps=4)


def test_text_layers_learn_in_their_rows_alone(base: Base, trained: TrainResult) -> None:
    text = {name: layer for name, layer in trained.lora.layers.items() if is_text(name)}
    assert len(text) == 4 * TEXT_LAYERS
    for layer in text.values():
        assert layer.rows == CONFIG.adapter.scheme.rows(5, 768)
    assert any(layer.up.abs().max() > 0 for layer in text.values())
    assert not any(is_text(name) for name in train(base, steps=1).lora.layers)


def test_what_was_learnt_is_what_a_merge_and_the_stock_loader_give(
    base: Base, trained: TrainResult, tmp_path: Path
) -> None:
    path = tmp_path / "ada.safetensors"
    save(path, trained.lora, dtype=torch.float32)
    merged = apply_merge((trained.lora,), base.model, base.clip)
    assert merged.clip_layers == 4 * TEXT_LAYERS
    model, clip = comfy.sd.load_lora_for_models(base.model, base.clip, comfy.utils.load_torch_file(str(path)), 1.0, 1.0)
    for ours, stock in ((merged.clip.patcher, clip.patcher), (merged.model, model)):
        a, b = patched(ours), patched(stock)
        assert all(torch.allclose(a[name], b[name], atol=1e-6) for name in a)


def test_every_layer_has_its_gram(trained: TrainResult) -> None:
    assert trained.lora.grams is not None and trained.lora.grams.covers(trained.lora.layers)


def test_nothing_is_left_in_the_text_encoder(base: Base) -> None:
    before, hooked = weights(base), hooks(base)
    train(base, text_learning_rate=0.01, steps=1)
    assert same(before, weights(base)) and hooks(base) == hooked


def test_same_seed_same_text_layers(base: Base, trained: TrainResult) -> None:
    again = train(base, text_learning_rate=0.01, learning_rate=0.01, steps=4).lora
    assert all(torch.equal(again.layers[name].up, layer.up) for name, layer in trained.lora.layers.items())


def test_a_trigger_word_needs_no_token(base: Base) -> None:
    lora = train(base, token="none", name="sks", niche_weight=1.0).lora
    assert not lora.embeddings
    merged = apply_merge((lora,), base.model, base.clip)
    assert torch.equal(encode(merged.clip, "a sks")[0][0], encode(base.clip, "a sks")[0][0])


def masked(base: Base, checkpointing: bool = False, **changes: Any) -> TrainResult:
    mask = torch.zeros(64, 64)
    mask[:32] = 1.0
    job = TrainJob(
        Concept("<ada>", "person"), pictures(), ("a person",), CONFIG.changed(**changes), 5,
        precision="fp32", masks=[mask] * 3, checkpointing=checkpointing,
    )  # fmt: skip
    with torch.inference_mode():
        return train_concept(base.model, base.clip, base.vae, job)


def test_attention_regularisation_turns_the_token(base: Base) -> None:
    before = hooks(base)
    plain, regularised = masked(base), masked(base, attention_weight=10.0)
    assert not torch.equal(plain.lora.embeddings["clip_l"], regularised.lora.embeddings["clip_l"])
    # The loss that is shown is the pictures' alone, which starts alike.
    assert plain.losses[0] == regularised.losses[0]
    assert hooks(base) == before


def test_attention_regularisation_is_the_same_with_checkpointing(base: Base) -> None:
    """Which computes activations again after the loss has taken them."""
    plain, again = (masked(base, checkpointing, attention_weight=10.0, steps=3) for checkpointing in (False, True))
    torch.testing.assert_close(again.lora.embeddings["clip_l"], plain.lora.embeddings["clip_l"], rtol=1e-4, atol=1e-6)


def test_attention_regularisation_needs_masks(base: Base) -> None:
    with pytest.raises(ValueError, match="expected masks, got none: connect them to Train"):
        train(base, attention_weight=0.01)


def test_attention_regularisation_says_what_a_model_lacks() -> None:
    model, clip = build("flux"), encoder_of("flux")
    mask, latents = torch.ones(1, 8, 8), torch.zeros(latents_of("flux"))
    config = CONFIG.changed(attention_weight=0.01)
    with training_mode():
        port = ComfyPort(model, clip)
        dataset = Dataset([Example(latents, "a <ada>", mask)], 1)
        with pytest.raises(ValueError, match=rf"expected a U-Net with cross-attention.*{port.base} has none"):
            Trainer(port, dataset, Concept("<ada>", "man"), config)


LONG = "a very long text about nothing at all, " * 40
"""More than four times 77 tokens: the host shows a model such a prompt on its own."""


def test_attention_regularisation_of_captions_of_very_unequal_length(base: Base) -> None:
    random = torch.Generator().manual_seed(0)
    token = {"clip_l": torch.randn(2, 768, generator=random) * 0.02}
    masks = (torch.rand(3, 1, 8, 8, generator=random) > 0.5).float()
    with training_mode():
        port = ComfyPort(base.model, base.clip)
        texts = ["a <ada>", f"{LONG} <ada>", "<ada> on a hill"]
        prompts = [port.encode(text, "<ada>", token) for text in texts]
        assert prompts[1].cross.shape[1] > 4 * prompts[0].cross.shape[1]
        noisy, sigma = torch.randn(3, 4, 8, 8, generator=random), port.sigmas[500].reshape(1).float()
        recorder = AttentionRecorder(port.cross_attentions)

        def loss(rows: list[int], own: int) -> torch.Tensor:
            """Of the first `own` rows: those behind are other terms' of the loss."""
            prompt = Conditioning.cat([prompts[row] for row in rows])
            with recorder.watching():
                port.predict(noisy[rows], sigma.repeat(len(rows)), prompt)
            return recorder.loss(masks[rows[:own]], prompt.concept_at[:own], port.passes).detach()

        with recorder.attached(), torch.no_grad():
            alone = torch.stack([loss([row], 1) for row in range(3)])
            assert float(alone.min()) > 0 and float(alone.std()) > 0.01 * float(alone.mean())
            for rows, own in (([0, 1, 2], 3), ([1, 0, 2], 3), ([0, 1, 2], 2), ([1, 0], 1), ([0, 1], 1)):
                torch.testing.assert_close(loss(rows, own), alone[rows[:own]].mean(), rtol=1e-4, atol=1e-7)


def test_prior_preservation_learns_from_the_bases_own_pictures(base: Base) -> None:
    plain, kept = train(base, steps=4), train(base, steps=4, prior_pictures=2)
    names = list(plain.lora.layers)
    assert any(not torch.equal(plain.lora.layers[name].up, kept.lora.layers[name].up) for name in names)
    again = train(base, steps=4, prior_pictures=2)
    assert all(torch.equal(kept.lora.layers[name].up, again.lora.layers[name].up) for name in names)
    assert index(plain.lora.layers[names[0]].rows).numel()
