"""Grams for files that carry none."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import comfy.model_management
import pytest
import torch
from blocklora.blocklora_core.concept.concept import BlockLoRA
from blocklora.blocklora_core.concept.keys import is_text
from blocklora.blocklora_core.concept.layer import Layer
from blocklora.blocklora_core.files.io import load, save
from blocklora.blocklora_core.host.train.collect import CollectJob, collect
from blocklora.blocklora_core.host.weights.names import weights_of
from blocklora.blocklora_core.host.weights.patching import apply_merge
from torch import nn

from tests.host.tiny import Base, adaptable, make_lora, patched, same

QUICK = CollectJob(pictures=2, steps=2, size=64, seed=5)


def hooks(base: Base) -> int:
    sides: tuple[nn.Module, ...] = (base.model.model, base.clip.cond_stage_model)
    return sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for side in sides for m in side.modules())


@pytest.fixture(scope="module")
def plain(base: Base) -> BlockLoRA:
    return make_lora(base, "<p>", 1, scheme=None)


@pytest.fixture(scope="module")
def collected(base: Base, plain: BlockLoRA) -> BlockLoRA:
    (lora,) = collect(base.model, base.clip, (plain,), QUICK).stack
    return lora


@pytest.fixture
def untouched(base: Base) -> Iterator[None]:
    """Weights, hooks and patches are the same at the end."""
    before = patched(base.model)
    yield
    assert hooks(base) == 0 and base.model.patches == {} and base.clip.patcher.patches == {}
    assert same(before, patched(base.model))


def watched_inputs(base: Base, lora: BlockLoRA, job: CollectJob) -> dict[str, torch.Tensor]:
    """Mean of x x^T of every layer by a plain merge of the concept, sampled anew."""
    applied = apply_merge((replace(lora, grams=None),), base.model, base.clip, "per_row")
    bare = replace(lora, layers={}, embeddings=lora.embeddings)
    weights, sums, rows = weights_of(base.model, base.clip), dict[str, torch.Tensor](), dict[str, int]()
    modules = dict(base.model.model.named_modules()) | dict(base.clip.cond_stage_model.named_modules())

    def watch(stem: str) -> Any:
        def add(_module: nn.Module, inputs: tuple[torch.Tensor, ...]) -> None:
            x = inputs[0].float().flatten(0, -2)
            sums[stem] = sums.get(stem, torch.zeros(())) + x.T @ x
            rows[stem] = rows.get(stem, 0) + len(x)

        return add

    handles = [
        modules[weights.stems[stem].removesuffix(".weight")].register_forward_pre_hook(watch(stem))
        for stem in lora.layers
    ]
    try:
        # The concept comes from patched weights here; what is collected has no layers of its own to add.
        probe = replace(bare, layers={next(iter(lora.layers)): zero(lora)})
        collect(applied.model, applied.clip, (probe,), replace(job, again=True))
    finally:
        for handle in handles:
            handle.remove()
    return {stem: sums[stem] / rows[stem] for stem in sums}


def zero(lora: BlockLoRA) -> Layer:
    layer = next(iter(lora.layers.values()))
    return layer.with_up(torch.zeros_like(layer.up))


def test_a_plain_lora_gets_a_gram_for_every_layer(plain: BlockLoRA, collected: BlockLoRA) -> None:
    assert collected.grams is not None and collected.grams.covers(plain.layers)
    for name, layer in plain.layers.items():
        gram = collected.grams.of(name)
        assert gram.size == layer.in_features and gram.trace > 0
    assert any(map(is_text, collected.grams.input_of))


def test_q_k_and_v_share_and_so_do_all_blocks_that_read_the_prompt(collected: BlockLoRA) -> None:
    assert collected.grams is not None
    shared = collected.grams.input_of
    for kind in ("attn1_to_q", "attn1_to_k", "attn1_to_v"):
        names = [name for name in shared if name.endswith(kind)]
        assert len({shared[name] for name in names}) == len(names)
    first = next(name for name in shared if name.endswith("attn1_to_q"))
    assert shared[first] == shared[first[:-1] + "k"] == shared[first[:-1] + "v"]
    readers = [name for name in shared if name.endswith(("attn2_to_k", "attn2_to_v"))]
    assert len(readers) > 2 and len({shared[name] for name in readers}) == 1


def test_it_sees_what_the_merged_model_sees(base: Base, plain: BlockLoRA, collected: BlockLoRA) -> None:
    expected = watched_inputs(base, plain, QUICK)
    assert collected.grams is not None and expected.keys() == plain.layers.keys()
    for name, full in expected.items():
        gram = collected.grams.of(name)
        scale = full.diagonal().mean()
        torch.testing.assert_close(gram.diagonal.sum() + gram.values.sum(), full.trace(), rtol=0.02, atol=0)
        diagonal = gram.dense(torch.float32).diagonal()
        torch.testing.assert_close(diagonal / scale, full.diagonal() / scale, rtol=0.1, atol=0.1)


@pytest.mark.usefixtures("untouched")
def test_the_same_seed_gives_the_same_grams_and_another_does_not(
    base: Base, plain: BlockLoRA, collected: BlockLoRA
) -> None:
    (again,) = collect(base.model, base.clip, (plain,), QUICK).stack
    (other,) = collect(base.model, base.clip, (plain,), replace(QUICK, seed=6)).stack
    name = next(name for name in plain.layers if not is_text(name))
    assert collected.grams and again.grams and other.grams
    assert torch.equal(again.grams.of(name).values, collected.grams.of(name).values)
    assert not torch.equal(other.grams.of(name).values, collected.grams.of(name).values)


def test_they_are_saved_and_let_plain_loras_fuse(base: Base, collected: BlockLoRA, tmp_path: Path) -> None:
    second = make_lora(base, "<q>", 2, scheme=None)
    done = collect(base.model, base.clip, (collected, second), QUICK)
    assert done.stack[0] is collected and list(done.seconds) == ["<q>"]
    files = [load(save(tmp_path / f"{at}.safetensors", lora)) for at, lora in enumerate(done.stack)]
    applied = apply_merge(files, base.model, base.clip, "auto", "share")
    assert applied.merged.method == "fused"
    assert not same(patched(applied.model), patched(base.model))


def test_prompts_name_the_concept(plain: BlockLoRA) -> None:
    foreign = replace(plain, embeddings={}, metadata={"modelspec.trigger_phrase": "sks man"})
    job = CollectJob(["a {concept}", " ", "{concept}, forest"], pictures=3)
    assert job.prompts_of(plain) == ["a <p>", "<p>, forest", "a <p>"]
    assert job.prompts_of(foreign)[0] == "a sks man"
    assert CollectJob(pictures=1).prompts_of(plain) == ["a <p>"]


@pytest.mark.usefixtures("untouched")
def test_cancel_leaves_nothing_behind(base: Base, plain: BlockLoRA) -> None:
    comfy.model_management.interrupt_current_processing()
    with pytest.raises(comfy.model_management.InterruptProcessingException):
        collect(base.model, base.clip, (plain,), QUICK)


@pytest.mark.usefixtures("untouched")
def test_a_file_for_another_model_is_refused(base: Base, plain: BlockLoRA) -> None:
    strange = plain.renamed_layers({stem: f"lora_unet_nowhere_{stem}" for stem in plain.layers})
    with pytest.raises(ValueError, match="load that checkpoint"):
        collect(base.model, base.clip, (plain, strange), QUICK)


@pytest.mark.parametrize("wrong", [{"pictures": 0}, {"steps": 0}, {"size": 0}, {"eigenpairs": 0}])
def test_impossible_numbers_are_refused(wrong: dict[str, int]) -> None:
    with pytest.raises(ValueError, match=r"expected .* of at least 1"):
        CollectJob(**wrong)


def test_nothing_due_is_said(base: Base, collected: BlockLoRA) -> None:
    done = collect(base.model, base.clip, (collected,), QUICK)
    assert done.stack == (collected,) and "every concept has its Grams" in done.notes[0]
    assert len(adaptable(base)) == len(collected.layers)
