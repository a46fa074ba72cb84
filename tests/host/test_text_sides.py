"""Tokens and layers of every text encoder that the host knows: they learn, are merged, and stock prompts take them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from blocklora.blocklora_core.concept.concept import Concept
from blocklora.blocklora_core.concept.keys import is_text
from blocklora.blocklora_core.files.io import load, save
from blocklora.blocklora_core.host.text.tokens import encoder_tokenizers
from blocklora.blocklora_core.host.train.port import ComfyPort
from blocklora.blocklora_core.host.weights.autograd import training_mode
from blocklora.blocklora_core.host.weights.patching import apply_merge
from blocklora.blocklora_core.training import Dataset, Example, TrainConfig, Trainer

from tests.host.architectures import ARCHITECTURES, KNOWN, build, latents_of
from tests.host.encoders import REAL, encoder_of
from tests.host.tiny import patched

CONFIG = TrainConfig.of(
    steps=3, batch_size=1, rank=2, niche_weight=0.0, gram_pictures=1, gram_steps=1, preview_every=0, learning_rate=0.01,
    text_learning_rate=0.01, slot=2,
)  # fmt: skip
SIDES = {ARCHITECTURES[name][3]: name for name in KNOWN if ARCHITECTURES[name][3] in REAL}
"""One architecture for each text side."""
LETTERS_ALONE = {"longcat"}
"""Their tokenizers take no embeddings."""


def train(name: str, model: Any, clip: Any) -> Trainer:
    latents = torch.randn(latents_of(name), generator=torch.Generator().manual_seed(0))
    with training_mode():
        port = ComfyPort(model, clip)
        trainer = Trainer(port, Dataset([Example(latents, "a photo of <ada>")], 1), Concept("<ada>", "man"), CONFIG)
        trainer.run(lambda _: None)
    return trainer


@pytest.mark.parametrize("side", sorted(LETTERS_ALONE.intersection(SIDES)))
def test_a_text_side_that_reads_letters_alone_is_told(side: str) -> None:
    with pytest.raises(ValueError, match=r"reads letters alone\. Set token to none in Train"):
        train(SIDES[side], build(SIDES[side]), encoder_of(SIDES[side]))


@pytest.mark.parametrize("side", [side for side in SIDES if side not in LETTERS_ALONE])
def test_token_and_text_layers_learn_and_work_in_stock_prompts(side: str, tmp_path: Path) -> None:
    name = SIDES[side]
    model, clip = build(name), encoder_of(name)
    trainer = train(name, model, clip)
    lora = trainer.result()
    assert lora.embeddings and set(lora.embeddings) <= set(encoder_tokenizers(clip))
    for encoder, begun in trainer.port.class_embeddings("man").items():
        assert float((lora.embeddings[encoder][1] - begun[0]).abs().max()) > 0.9 * 0.001, f"{encoder}: the token learns"
    text = {stem: layer for stem, layer in lora.layers.items() if is_text(stem)}
    # The last blocks are idle where the model reads the layer before them.
    learnt = [stem for stem, layer in text.items() if bool(layer.up.any())]
    assert len(learnt) >= len(text) / 2 > 0
    again = load(save(tmp_path / "ada.safetensors", lora, dtype=torch.float32))
    before = patched(clip.patcher)
    merged = apply_merge((again,), model, clip)
    after = patched(merged.clip.patcher)
    changed = [at for at in before if not torch.equal(before[at], after[at])]
    assert (
        len(changed) == len(learnt)
        and merged.clip_layers == len(text)
        and merged.model_layers == len(lora.layers) - len(text)
    )
    with torch.inference_mode():
        found = merged.clip.encode_from_tokens_scheduled(merged.clip.tokenize("a photo of <ada> in a garden"))[0]
        plain = clip.encode_from_tokens_scheduled(clip.tokenize("a photo of <ada> in a garden"))[0]
    assert bool(found[0].isfinite().all())
    assert found[0].shape != plain[0].shape or not torch.equal(found[0], plain[0])
