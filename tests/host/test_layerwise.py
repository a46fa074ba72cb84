"""Layer-wise tokens (ED-LoRA): every cross-attention layer reads its own encoding, through stock nodes."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch
from blocklora.blocklora_core.concept.concept import BlockLoRA
from blocklora.blocklora_core.files.io import load, save
from blocklora.blocklora_core.host.text.layerwise import cross_attention_layers
from blocklora.blocklora_core.host.text.tokens import with_concepts
from blocklora.blocklora_core.host.weights.patching import apply_merge

import nodes
from tests.host.test_training import train
from tests.host.tiny import Base, make_lora


def layers_of(base: Base) -> int:
    return len(cross_attention_layers(base.model.model.diffusion_model))


def concept(base: Base, vectors: torch.Tensor, name: str = "<ada>") -> BlockLoRA:
    return dataclasses.replace(make_lora(base, name, 0, stems=[]), embeddings={"clip_l": vectors})


def random_vectors(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)) * 0.1


@torch.inference_mode()
def encode(clip: Any, prompt: str) -> Any:
    return nodes.CLIPTextEncode().encode(clip, prompt)[0]


@torch.inference_mode()
def predict(base: Base, model: Any, positive: Any, negative: Any, watch: Any = None) -> torch.Tensor:
    """Latents of one guided step of the stock KSampler."""
    module = next(m for n, m in base.model.model.diffusion_model.named_modules() if n.endswith("attn2.to_k"))
    handle = module.register_forward_hook(watch) if watch else None
    try:
        latent = {"samples": torch.zeros(1, 4, 8, 8)}
        return nodes.common_ksampler(model, 5, 1, 4.0, "euler", "normal", positive, negative, latent)[0]["samples"]
    finally:
        if handle:
            handle.remove()


def test_equal_layers_are_as_one_token(base: Base) -> None:
    pair = random_vectors(2, 768)
    outputs = []
    for vectors in (pair, pair.expand(layers_of(base), -1, -1).clone()):
        merged = apply_merge((concept(base, vectors),), base.model, base.clip)
        positive, negative = encode(merged.clip, "a <ada> in a hat"), encode(merged.clip, "bad")
        outputs.append(predict(base, merged.model, positive, negative))
    assert torch.allclose(*outputs, atol=1e-5)


@pytest.mark.parametrize("prompt", ["a <ada> in a hat", "a (<ada>:1.3)", "word " * 80 + "<ada>"])
def test_each_layer_reads_its_own_vectors(base: Base, prompt: str) -> None:
    count = layers_of(base)
    vectors = random_vectors(count, 2, 768)
    merged = apply_merge((concept(base, vectors),), base.model, base.clip)
    context = encode(merged.clip, prompt)[0][0]
    patch = merged.model.model_options["transformer_options"]["patches"]["attn2_patch"][0]
    for (kind, block, index), number in patch.layers.items():
        options = {"block": (kind, block), "block_index": index}
        own = patch(context, context, None, options)[1]
        single = apply_merge((concept(base, vectors[number]),), base.model, base.clip)
        assert torch.allclose(own, encode(single.clip, prompt)[0][0], atol=1e-5)


def test_layers_are_counted_as_they_compute(base: Base) -> None:
    merged = apply_merge((concept(base, random_vectors(layers_of(base), 2, 768)),), base.model, base.clip)
    seen: list[Any] = []

    def note(x: Any, context: Any, value: Any, options: dict[str, Any]) -> Any:
        seen.append((*options["block"], options["block_index"]))
        return x, context, value

    merged.model.set_model_attn2_patch(note)
    positive = encode(merged.clip, "a <ada>")
    predict(base, merged.model, positive, positive)
    assert seen == list(cross_attention_layers(base.model.model.diffusion_model))


def test_a_negative_of_another_length_changes_nothing(base: Base) -> None:
    merged = apply_merge((concept(base, random_vectors(layers_of(base), 2, 768)),), base.model, base.clip)
    positive = encode(merged.clip, "a <ada>")
    lengths: list[int] = []

    def watch(_module: Any, inputs: tuple[torch.Tensor, ...], _output: Any) -> None:
        lengths.append(inputs[0].shape[1])

    # A prompt of the CLIP that came in has one encoding for all layers.
    together = predict(base, merged.model, positive, encode(merged.clip, "bad"), watch)
    apart = predict(base, merged.model, positive, encode(base.clip, "bad"), watch)
    assert lengths[0] == 77
    assert torch.allclose(together, apart, atol=1e-5)


def test_one_layerwise_and_one_single_concept(base: Base) -> None:
    layered = concept(base, random_vectors(layers_of(base), 2, 768))
    single = concept(base, random_vectors(2, 768, seed=1), "<bob>")
    merged = apply_merge((layered, single), base.model, base.clip)
    alone = apply_merge((single,), base.model, base.clip)
    context = encode(merged.clip, "a <bob>")[0][0]
    assert torch.allclose(context[:, :77], encode(alone.clip, "a <bob>")[0][0], atol=1e-5)


def test_refuses_another_number_of_layers(base: Base) -> None:
    wrong = concept(base, random_vectors(layers_of(base) + 1, 2, 768))
    with pytest.raises(ValueError, match=f"expected {layers_of(base)} layers, as this model has"):
        apply_merge((wrong,), base.model, base.clip)
    other = concept(base, random_vectors(layers_of(base), 2, 768), "<bob>")
    with pytest.raises(ValueError, match="expected one number of layers"):
        with_concepts(base.clip, {lora.concept.name: lora.embeddings for lora in (other, wrong)})


def test_the_models_given_stay_as_they_are(base: Base) -> None:
    apply_merge((concept(base, random_vectors(layers_of(base), 2, 768)),), base.model, base.clip)
    assert "patches" not in base.model.model_options.get("transformer_options", {})
    assert encode(base.clip, "a <ada>")[0][0].shape[1] == 77


def test_trained_saved_and_loaded(base: Base, tmp_path: Path) -> None:
    lora = train(base, token="layer-wise", embedding_learning_rate=0.1).lora
    vectors = lora.embeddings["clip_l"]
    assert vectors.shape == (layers_of(base), 2, 768)
    # Alike at the start; each layer's learn on their own.
    assert not torch.equal(vectors[0], vectors[1])
    save(tmp_path / "ada.safetensors", lora, dtype=torch.float32)
    assert torch.equal(load(tmp_path / "ada.safetensors").embeddings["clip_l"], vectors)
