"""Stock "CLIP Text Encode" after a merge: prompts that name concepts."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
import torch
from blocklora.blocklora_core.concept.concept import BlockLoRA
from blocklora.blocklora_core.host.weights.patching import apply_merge

import nodes
from tests.host.tiny import Base, make_lora

Token = tuple[Any, float]
START, END = 49406, 49407


@pytest.fixture(scope="module")
def concepts(base: Base) -> tuple[BlockLoRA, BlockLoRA]:
    """Two concepts with tokens alone, so that only the prompt's reading can differ."""
    a, b = make_lora(base, "<ada>", 0, stems=[]), make_lora(base, "<bob>", 1, stems=[])
    return a, b


@pytest.fixture(scope="module")
def clip(base: Base, concepts: tuple[BlockLoRA, BlockLoRA]) -> Any:
    return apply_merge(concepts, base.model, base.clip).clip


def tokens(clip: Any, prompt: str) -> list[Token]:
    (chunk,) = clip.tokenize(prompt)["l"]
    return [(token[0], token[1]) for token in chunk]


def vectors(clip: Any, prompt: str) -> list[Token]:
    """The tokens that are vectors, with their weights."""
    return [token for token in tokens(clip, prompt) if torch.is_tensor(token[0])]


def words(clip: Any, prompt: str) -> list[int]:
    """The words' tokens, without start, end and padding."""
    ids = [token for token, _ in tokens(clip, prompt) if not torch.is_tensor(token)]
    return [number for number in ids if number not in (START, END)]


def are(found: list[Token], *loras: BlockLoRA, weight: float = 1.0) -> bool:
    expected = [vector for lora in loras for vector in lora.embeddings["clip_l"]]
    return len(found) == len(expected) and all(
        torch.equal(vector, wanted) and abs(given - weight) < 1e-6
        for (vector, given), wanted in zip(found, expected, strict=True)
    )


@torch.inference_mode()
def encode(clip: Any, prompt: str) -> torch.Tensor:
    ((cond, _),) = nodes.CLIPTextEncode().encode(clip, prompt)[0]
    return cond


@pytest.mark.parametrize(
    "prompt",
    [
        "<ada>",
        "a <ada> in a hat",
        "a<ada>b",
        "a <ada>, in a hat",
        "a <ada>. A hat",
        "embedding:<ada>",
        "a embedding:<ada>, in a hat",
        "a\n<ada>\nin a hat",
    ],
)
def test_a_name_is_its_two_vectors(clip: Any, concepts: tuple[BlockLoRA, BlockLoRA], prompt: str) -> None:
    assert are(vectors(clip, prompt), concepts[0])


def test_the_words_around_a_name_stay(base: Base, clip: Any) -> None:
    assert words(clip, "a <ada>, in a hat") == words(base.clip, "a, in a hat")


def test_emphasis_reaches_the_vectors(clip: Any, concepts: tuple[BlockLoRA, BlockLoRA]) -> None:
    assert are(vectors(clip, "a (<ada>:1.2) in a hat"), concepts[0], weight=1.2)
    assert are(vectors(clip, "(a <ada>)"), concepts[0], weight=1.1)


def test_twice_in_a_prompt(clip: Any, concepts: tuple[BlockLoRA, BlockLoRA]) -> None:
    assert are(vectors(clip, "<ada> beside <ada>"), concepts[0], concepts[0])


def test_two_concepts_in_a_prompt(clip: Any, concepts: tuple[BlockLoRA, BlockLoRA]) -> None:
    assert are(vectors(clip, "<bob> beside <ada>"), concepts[1], concepts[0])


def test_a_longer_name_is_not_taken_for_a_shorter(base: Base) -> None:
    short, long = make_lora(base, "ann", 0, stems=[]), make_lora(base, "anna", 1, stems=[])
    clip = apply_merge((short, long), base.model, base.clip).clip
    assert are(vectors(clip, "anna"), long)


def test_the_clip_given_does_not_understand(base: Base, clip: Any) -> None:
    assert vectors(base.clip, "a <ada>") == []
    assert not torch.equal(encode(base.clip, "a <ada>"), encode(clip, "a <ada>"))


def test_names_mean_different_things(clip: Any) -> None:
    assert not torch.equal(encode(clip, "a <ada>"), encode(clip, "a <bob>"))


@pytest.mark.parametrize("prompt", ["", "a cat, a (red:1.3) hat", "a \\(cat\\)", "embedding:none of mine"])
def test_prompts_without_names_encode_as_before(base: Base, clip: Any, prompt: str) -> None:
    assert torch.equal(encode(base.clip, prompt), encode(clip, prompt))


@pytest.mark.parametrize(
    "prompt",
    ["a embedding:people/eve man", "embedding:bad.eve", "(embedding:eve.safetensors:1.2)", "embedding:art/eve/x"],
)
def test_an_embedding_whose_path_holds_a_name_stays_the_users(base: Base, prompt: str) -> None:
    eve = apply_merge((make_lora(base, "eve", 0, stems=[]),), base.model, base.clip).clip
    assert vectors(eve, prompt) == [] and torch.equal(encode(eve, prompt), encode(base.clip, prompt))


@pytest.mark.parametrize(
    "prompt",
    [
        "embedding:eve",
        "(embedding:Eve:1.2), a",
        "a embedding:eve, in a hat",
        "embedding:eve. smiling",
        "embedding:eve's hat",
        "[embedding:eve]",
        "\\(embedding:eve\\)",
        "embedding:eve;",
    ],
)
def test_an_embedding_that_is_a_name_is_the_concept(base: Base, prompt: str) -> None:
    lora = make_lora(base, "eve", 0, stems=[])
    eve = apply_merge((lora,), base.model, base.clip).clip
    assert are(vectors(eve, prompt), lora, weight=1.2 if ":1.2" in prompt else 1.0)


def test_an_empty_embedding_name_is_passed_over(clip: Any) -> None:
    assert vectors(clip, "a embedding:") == []


def test_a_merge_on_a_merge_keeps_both_names(base: Base, concepts: tuple[BlockLoRA, BlockLoRA]) -> None:
    first = apply_merge(concepts[:1], base.model, base.clip)
    second = apply_merge(concepts[1:], first.model, first.clip)
    assert are(vectors(second.clip, "<ada> <bob>"), *concepts)
    assert are(vectors(first.clip, "<ada> <bob>"), concepts[0])


def test_refuses_vectors_of_another_width(base: Base, concepts: tuple[BlockLoRA, BlockLoRA]) -> None:
    wide = dataclasses.replace(concepts[0], embeddings={"clip_l": torch.zeros(2, 512)})
    with pytest.raises(ValueError, match="expected vectors of 768 numbers, got 512"):
        apply_merge((wide,), base.model, base.clip)
