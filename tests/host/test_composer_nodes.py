"""Composer's nodes on the demo's base: prompts that know their concept, and a picture made with them."""

from __future__ import annotations

import asyncio
from typing import Any

import execution
import pytest
import torch
from blocklora.blocklora_core.concept.concept import BlockLoRA
from blocklora.blocklora_core.concept.keys import is_text
from blocklora.blocklora_core.host.composer.prompt import CONCEPT_AT, clip_of, concept_at, concept_prompt
from blocklora.blocklora_core.host.text.layerwise import cross_attention_layers
from blocklora.blocklora_core.host.weights.patching import apply_merge
from blocklora.blocklora_core.regions.composer.options import CODE, FORMER_NAMES, PAPER, PRESETS, ComposerOptions
from blocklora.nodes.regions.composer import BlockLoRAComposer, BlockLoRAComposerOptions, BlockLoRAConceptPrompt
from blocklora.nodes.regions.regions import BlockLoRARegion

import nodes
from tests.host.dynamic import equal
from tests.host.tiny import Base, make_lora, patched, same

PARTS = ("injection", "enhancement", "fill", "region", "isolation", "reinitialise")


@pytest.fixture(scope="module")
def stack(base: Base) -> tuple[BlockLoRA, BlockLoRA]:
    return make_lora(base, "<ada>", 0, scheme=None), make_lora(base, "<bob>", 1, scheme=None)


def layerwise(lora: BlockLoRA, layers: int) -> BlockLoRA:
    vectors = torch.randn(layers, 2, 768, generator=torch.Generator().manual_seed(4))
    return BlockLoRA(lora.concept, lora.layers, embeddings={"clip_l": vectors})


# Prompts


@pytest.mark.parametrize(
    ("text", "concept", "places"),
    [
        ("a photo of <ada>", "<ada>", (4, 5)),
        ("<ada> in a park", "<ada>", (1, 2)),
        ("a (photo of <ada>:1.3)", "<ada>", (4, 5)),
        ("a photo of <ada> with <bob>", "<bob>", (7, 8)),
        ("a man in a red coat", "red coat", (5, 6)),
        ("a man, a man", "man", (2,)),
    ],
)
def test_a_prompt_knows_where_its_concept_is(
    base: Base, stack: tuple[BlockLoRA, BlockLoRA], text: str, concept: str, places: tuple[int, ...]
) -> None:
    clip = apply_merge(stack, base.model, base.clip, "task_sum").clip
    with torch.inference_mode():
        found = concept_prompt(clip, text, concept)
        ((plain, _),) = nodes.CLIPTextEncode().encode(clip, text)[0]
    assert concept_at(found) == places == found[0][1][CONCEPT_AT]
    assert equal(found[0][0], plain)


def test_a_concept_behind_77_tokens_is_found(base: Base, stack: tuple[BlockLoRA, BlockLoRA]) -> None:
    clip = apply_merge(stack, base.model, base.clip, "task_sum").clip
    with torch.inference_mode():
        found = concept_prompt(clip, "man, " * 60 + "a <ada>", "<ada>")
    assert found[0][0].shape[1] == 154 and all(77 < place < 154 for place in concept_at(found))


@pytest.mark.parametrize("long", [False, True])
def test_in_a_layer_wise_prompt_places_are_of_one_layer(base: Base, stack: Any, long: bool) -> None:
    lora = layerwise(stack[0], 8)
    text = ("man, " * 60 if long else "") + "a photo of <ada>"
    with torch.inference_mode():
        found = concept_prompt(base.clip, text, "<ada>", lora)
    assert found[0][0].shape[1] == (2 if long else 1) * 8 * 77
    places = concept_at(found)
    assert len(places) == 2 and places[0] // 77 == (1 if long else 0)
    assert long or places == (4, 5)


def test_an_unmerged_concept_s_prompt_is_that_of_its_own_merge(base: Base, stack: tuple[BlockLoRA, BlockLoRA]) -> None:
    """Its own text encoder and token, at its own strength; the base's CLIP stays as it is."""
    lora = stack[0].with_strength(1.0, 0.5)
    before = patched(base.clip.patcher)
    with torch.inference_mode():
        found = concept_prompt(base.clip, "a photo of <ada>", "<ada>", lora)
        merged = apply_merge((lora,), base.model, base.clip, "per_row").clip
        ((expected, _),) = nodes.CLIPTextEncode().encode(merged, "a photo of <ada>")[0]
        ((bare, _),) = nodes.CLIPTextEncode().encode(base.clip, "a photo of <ada>")[0]
    assert torch.allclose(found[0][0], expected, rtol=1e-4, atol=1e-4)
    assert not torch.allclose(found[0][0], bare, rtol=1e-3, atol=1e-3)
    assert same(before, patched(base.clip.patcher)) and not base.clip.patcher.patches


def test_a_concept_without_text_layers_keeps_the_encoder(base: Base, stack: tuple[BlockLoRA, BlockLoRA]) -> None:
    lora = stack[0].with_layers({stem: layer for stem, layer in stack[0].layers.items() if not is_text(stem)})
    assert not clip_of(base.clip, lora).patcher.patches


@pytest.mark.parametrize(("text", "concept"), [("a man", "<ada>"), ("a man", ""), ("a red coat", "red hat")])
def test_words_that_are_not_in_the_prompt_are_refused(base: Base, text: str, concept: str) -> None:
    with pytest.raises(ValueError, match="expected the words"), torch.inference_mode():
        concept_prompt(base.clip, text, concept)


# Nodes


def regions(base: Base, stack: Any) -> Any:
    chain: Any = ()
    for x, name in ((0.0, "<ada>"), (0.5, "<bob>")):
        prompt = BlockLoRAConceptPrompt.execute(base.clip, f"a photo of {name}", f" {name} ", stack).args[0]
        chain = BlockLoRARegion.execute(prompt, x, 0.0, 0.5, 1.0, name, 1.0, 0.0, 0, regions=chain).args[0]
    return chain


def run(base: Base, model: Any) -> torch.Tensor:
    def encode(text: str) -> Any:
        return nodes.CLIPTextEncode().encode(base.clip, text)[0]

    latent = {"samples": torch.zeros(1, 4, 8, 8)}
    result = nodes.common_ksampler(model, 7, 3, 3.0, "euler", "normal", encode("two men"), encode(""), latent)
    return result[0]["samples"]


@torch.inference_mode()
def test_the_nodes_make_a_picture(base: Base, stack: tuple[BlockLoRA, BlockLoRA]) -> None:
    before = patched(base.model)
    found = regions(base, stack)
    on: dict[str, bool] = dict.fromkeys(PARTS, True)
    output = BlockLoRAComposer.execute(base.model, found, "strong", "mean", stack, **on).args
    picture = run(base, output[0])
    assert bool(picture.isfinite().all()) and output[1].shape[-1] == 3
    assert "enhancement 8" in output[2] and "act nowhere" in output[2] and "Injected layers: 0" not in output[2]
    assert equal(picture, run(base, output[0]))
    off = BlockLoRAComposer.execute(base.model, found, "strong", "mean", stack, **dict.fromkeys(PARTS, False)).args
    assert "Guidance: none" in off[2] and "Injected layers: 0" in off[2]
    assert not torch.allclose(run(base, off[0]), picture, rtol=1e-3, atol=1e-3)
    assert same(before, patched(base.model))
    assert not base.model.patches and not any(base.model.wrappers.values())


@torch.inference_mode()
def test_every_switch_and_option_arrives(base: Base, stack: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[ComposerOptions] = []
    original = BlockLoRAComposer.execute.__func__.__globals__["apply_composer"]

    def keep(model: Any, found: Any, options: ComposerOptions, *args: Any) -> Any:
        seen.append(options)
        return original(model, found, options, *args)

    monkeypatch.setattr("blocklora.nodes.regions.composer.apply_composer", keep)
    found = regions(base, stack)
    numbers = {item.id: getattr(CODE, item.id) for item in BlockLoRAComposerOptions.define_schema().inputs}
    options = BlockLoRAComposerOptions.execute(**numbers).args[0]
    on = dict.fromkeys(PARTS, True)
    BlockLoRAComposer.execute(base.model, found, "gentle", "mean", **on)
    BlockLoRAComposer.execute(base.model, found, "gentle", "mean", options=options, **on)
    assert seen == [PAPER, CODE] and set(numbers) | set(PARTS) == set(ComposerOptions.__dataclass_fields__)
    for part in PARTS:
        BlockLoRAComposer.execute(base.model, found, "strong", "mean", **{**on, part: False})
        left = seen.pop()
        assert not getattr(left, part)
        assert all(getattr(left, other) == getattr(CODE, other) for other in PARTS if other != part)


async def _accepted(preset: str) -> bool:
    """By the host, with what is connected taken for good."""
    linked = {"model": ["2", 0], "regions": ["3", 0]}
    inputs = {**linked, "preset": preset, "overlap": "mean", **dict.fromkeys(PARTS, True)}
    kinds = {"1": "BlockLoRAComposer", "2": "CheckpointLoaderSimple", "3": "BlockLoRARegion"}
    prompt = {number: {"class_type": kind, "inputs": inputs if number == "1" else {}} for number, kind in kinds.items()}
    validated: dict[str, Any] = {number: (True, [], number) for number in ("2", "3")}
    return (await execution.validate_inputs("prompt", prompt, "1", validated))[0]


@torch.inference_mode()
def test_what_presets_were_called_once_still_runs(base: Base, stack: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    for node in (BlockLoRAComposer, BlockLoRARegion):
        monkeypatch.setitem(nodes.NODE_CLASS_MAPPINGS, node.define_schema().node_id, node)
    assert not asyncio.run(_accepted("fierce"))
    found, on = regions(base, stack), dict.fromkeys(PARTS, True)
    for name in (*PRESETS, *FORMER_NAMES):
        assert asyncio.run(_accepted(name)), name
        report = BlockLoRAComposer.execute(base.model, found, name, "mean", **on).args[2]
        assert f"enhancement {PRESETS[FORMER_NAMES.get(name, name)].enhancement:g}," in report
    with pytest.raises(ValueError, match="expected a preset among gentle, medium, strong, got 'fierce'"):
        BlockLoRAComposer.execute(base.model, found, "fierce", "mean", **on)


def test_a_name_that_the_stack_has_not_is_refused(base: Base, stack: Any) -> None:
    with pytest.raises(ValueError, match="got <ada>, <bob>"):
        BlockLoRAConceptPrompt.execute(base.clip, "a <eve>", "<eve>", stack)


@torch.inference_mode()
def test_layer_wise_tokens_are_composed(base: Base, stack: tuple[BlockLoRA, BlockLoRA]) -> None:
    """Merged: MODEL then reads layer-wise prompts, the regions' as well."""
    layers = len(cross_attention_layers(base.model.model.diffusion_model))
    pair = tuple(layerwise(lora, layers) for lora in stack)
    merged = apply_merge(pair, base.model, base.clip, "task_sum")
    known = Base(merged.model, merged.clip, base.vae)
    found = regions(known, None)
    model = BlockLoRAComposer.execute(merged.model, found, "strong", "mean", **dict.fromkeys(PARTS, True)).args[0]
    assert bool(run(known, model).isfinite().all())
