"""`bench people capacity` asks the same of every way, and its control takes the row blocks away."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from benchmarks.identity_study import sample
from benchmarks.identity_study.sample import TOKENS, Merge
from benchmarks.people import capacity
from benchmarks.people.capacity import COUNTS, SHOWN, WAYS, crowd
from blocklora_core.concept.concept import Stack
from tests.core.samples import Recipe


def test_everybody_has_rows_where_slots_are_enough_and_shares_them_in_turn_where_not() -> None:
    for slots, most in ((capacity.FEW, 7), (capacity.ENOUGH, 1)):
        configs = [one.recipe.config(one.seed, one.slot) for one in crowd().trainings(slots)]
        assert len({config.seed for config in configs}) == len(configs)
        held = [config.adapter.slot for config in configs]
        assert max(map(held.count, held)) == most and set(held) <= set(range(slots))
        assert {config.adapter.scheme.slots for config in configs} == {slots}


@pytest.mark.parametrize("name", WAYS)
def test_the_same_people_are_looked_at_with_the_same_noise(name: str) -> None:
    runs = crowd().runs(WAYS[name])
    alone = [shot for cell in runs.pop("alone") for shot in cell.shots]
    for count, (cell,) in zip(COUNTS, runs.values(), strict=True):
        assert len(cell.trained) == count
        assert cell.shots == alone
        assert {case.member for case in cell.cases} == set(crowd().people[:SHOWN])


def test_the_control_merges_files_without_their_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[Stack, str]] = []

    def merge(stack: Stack, *_: Any, method: str, **__: Any) -> SimpleNamespace:
        seen.append((stack, method))
        return SimpleNamespace(model=None, clip=None)

    monkeypatch.setattr(sample, "apply_merge", merge)
    given: Stack = (Recipe().make("<a>", 0), Recipe().make("<b>", 1))
    for method in ("per_row", TOKENS):
        sample._merged(SimpleNamespace(model=None, clip=None), given, Merge(method))  # type: ignore[arg-type]
    (whole, _), (tokens, _) = seen
    assert whole == given and all(lora.layers for lora in whole)
    assert [lora.concept for lora in tokens] == [lora.concept for lora in given]
    assert not any(lora.layers for lora in tokens)
