"""Malformed files in the nodes: refused by Load, or at the latest by Merge; nothing is half-applied."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from blocklora.blocklora_core.concept.concept import BlockLoRA
from blocklora.blocklora_core.concept.gram import Gram, Grams
from blocklora.blocklora_core.concept.layer import Layer
from blocklora.blocklora_core.concept.rows import all_rows
from blocklora.blocklora_core.files.io import save
from blocklora.blocklora_core.host.weights.patching import apply_merge

from tests.host.tiny import Base, adaptable, make_lora
from tests.malformed_files import CASES, HARM, Case

pytestmark = pytest.mark.filterwarnings("ignore:Validating sparse tensor invariants")


def grams(lora: BlockLoRA, size: int | None = None) -> Grams:
    inputs = {name: Gram.compress(torch.eye(size or layer.in_features), 2) for name, layer in lora.layers.items()}
    return Grams(inputs, {name: name for name in inputs})


@pytest.fixture(scope="module")
def sound(base: Base) -> BlockLoRA:
    lora = make_lora(base, "<sound>", 1, stems=list(adaptable(base))[:2])
    return replace(lora, grams=grams(lora))


class Untouched:
    """MODEL, CLIP and a stack as they were: checked at the end."""

    def __init__(self, base: Base, stack: tuple[BlockLoRA, ...]):
        self.base, self.stack = base, stack
        self.tokenizer = vars(base.clip.tokenizer).copy()
        self.uuids = base.model.patches_uuid, base.clip.patcher.patches_uuid
        self.layers = [(lora, dict(lora.layers), [x.up.clone() for x in lora.layers.values()]) for lora in stack]

    def check(self) -> None:
        clip = self.base.clip
        assert self.base.model.patches == {} and clip.patcher.patches == {}
        assert (self.base.model.patches_uuid, clip.patcher.patches_uuid) == self.uuids
        assert vars(clip.tokenizer) == self.tokenizer
        for lora, layers, ups in self.layers:
            assert dict(lora.layers) == layers
            assert all(torch.equal(layer.up, up) for layer, up in zip(layers.values(), ups, strict=True))


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.name}{case.suffix}")
def test_load_refuses_and_a_sound_stack_merges_as_before(
    base: Base, pack: ModuleType, sound: BlockLoRA, folders: Path, monkeypatch: pytest.MonkeyPatch, case: Case
) -> None:
    monkeypatch.chdir(folders)
    good = save(folders / "good.safetensors", sound)
    case.write(good, folders / "models" / "loras")
    node = {kind.__name__: kind for kind in pack.NODES}
    untouched = Untouched(base, (sound,))
    with pytest.raises(ValueError, match=case.message):
        stack = node["BlockLoRALoad"].execute(f"bad{case.suffix}", 1.0).result[0]
        assert case.late
        other = make_lora(base, "<other>", 2, stems=list(sound.layers))
        apply_merge((*stack, replace(other, grams=grams(other))), base.model, base.clip, "fused")
    untouched.check()
    assert not (folders / HARM).exists()
    assert apply_merge((sound,), base.model, base.clip).model_layers == 2


def other_shape(lora: BlockLoRA) -> BlockLoRA:
    stem = max(lora.layers)
    return lora.with_layers({**lora.layers, stem: Layer(torch.ones(7, 1), torch.ones(1, 5), all_rows(7), 7)})


def nowhere(lora: BlockLoRA) -> BlockLoRA:
    return lora.renamed_layers({stem: f"lora_unet_nowhere_{stem}" for stem in lora.layers})


UNFIT: list[tuple[str, Callable[[BlockLoRA], BlockLoRA], str]] = [
    ("another shape", other_shape, "expected shape .* load that checkpoint"),
    ("other layers", nowhere, "none of its 2 layers is in this model"),
    (
        "a wide token",
        lambda x: replace(x, embeddings={"clip_l": torch.zeros(2, 512)}),
        "vectors of 768 numbers, got 512",
    ),
    ("too many layers' tokens", lambda x: replace(x, embeddings={"clip_l": torch.zeros(99, 2, 768)}), "99"),
    ("Grams of another size", lambda x: replace(x, grams=grams(x, 3)), "expected a Gram of 320 features .* got 3"),
    ("the same rows, no Grams", lambda x: replace(x, slot=1, layers=make_rows(x, 1), grams=None), "rows of their own"),
]


def make_rows(lora: BlockLoRA, slot: int) -> dict[str, Layer]:
    assert lora.scheme is not None
    return {
        stem: Layer(layer.up, layer.down, lora.scheme.rows(slot, layer.out_features), layer.out_features)
        for stem, layer in lora.layers.items()
    }


@pytest.mark.parametrize(("spoil", "message"), [case[1:] for case in UNFIT], ids=[case[0] for case in UNFIT])
def test_merge_refuses_the_whole_stack_and_changes_nothing(
    base: Base, pack: ModuleType, sound: BlockLoRA, spoil: Callable[[BlockLoRA], BlockLoRA], message: str
) -> None:
    other = make_lora(base, "<other>", 2, stems=list(sound.layers))
    stack = (sound, spoil(replace(other, grams=grams(other))))
    untouched = Untouched(base, stack)
    node: dict[str, Any] = {kind.__name__: kind for kind in pack.NODES}
    with pytest.raises(ValueError, match=message):
        node["BlockLoRAMerge"].execute(base.model, base.clip, stack, "auto", "error")
    untouched.check()
