"""Row scheme 2: weights that are several layers in one, beside files of scheme 1."""

from __future__ import annotations

import json
from dataclasses import replace
from hashlib import sha256
from pathlib import Path

import pytest
import torch

from blocklora_core.concept.concept import BlockLoRA
from blocklora_core.concept.layer import Layer
from blocklora_core.concept.rows import Parts, Scheme, count
from blocklora_core.files.io import encode, load, read_header, save
from blocklora_core.files.slots import describe_tables, owners_of_slots, tables
from blocklora_core.merge import merge
from blocklora_core.reports.inspection import inspect
from blocklora_core.reports.inspection.picture import report_picture
from tests.core.samples import QUERY, Recipe, generator

SINGLE, PLAIN = "diffusion_model.single_blocks.0.linear1", "diffusion_model.single_blocks.0.linear2"
OUT, PARTS, SIZE = 112, (16, 16, 16, 64), 12


def block(name: str, slot: int, version: int, names: tuple[str, ...] = (SINGLE, PLAIN)) -> BlockLoRA:
    """A concept on a single block of Flux's kind: one weight of four parts, one of one."""
    scheme, random = Scheme(version, 8), generator(10 * slot + version)
    layers = {}
    for stem, out, parts in ((SINGLE, OUT, PARTS), (PLAIN, 16, ())):
        rows = scheme.rows(slot, out, parts if version == 2 and parts else 1)
        up, down = torch.randn(count(rows), 2, generator=random).half(), torch.randn(2, SIZE, generator=random).half()
        if stem in names:
            layers[stem] = Layer(up.float(), down.float(), rows, out, parts=parts if version == 2 else ())
    lora = Recipe(scheme, {QUERY: (40, 4)}, base="flux").make(name, slot)
    return replace(lora, layers=layers, embeddings={})


def entries(path: Path) -> dict[str, dict[str, object]]:
    found: dict[str, dict[str, object]] = json.loads(read_header(path)["__metadata__"]["blocklora"])["layers"]
    return found


@pytest.mark.parametrize("slot", range(8))
def test_files_say_the_parts_and_give_back_the_block(slot: int, tmp_path: Path) -> None:
    lora = block("<a>", slot, 2)
    path = save(tmp_path / "a.safetensors", lora)
    assert entries(path)[SINGLE]["parts"] == list(PARTS) and set(entries(path)[PLAIN]) == {"out", "rows"}
    back = load(path)
    assert back.scheme == Scheme(2, 8) and encode(back) == path.read_bytes()
    for name, layer in lora.layers.items():
        found = back.layers[name]
        assert (found.rows, found.parts, found.out_features) == (layer.rows, layer.parts, layer.out_features)
        assert torch.equal(found.up, layer.up) and torch.equal(found.down, layer.down)
    # Each slot has rows of each part.
    at = 0
    for size in PARTS:
        assert sum(at <= row < at + size for part in back.layers[SINGLE].rows for row in part) == size // 8
        at += size


GOLDEN = "0dab5067f7db82b3f23c377941c1d097581ceb1d32f8eb6d15f73ebfb56a9345"
"""Of the file that the version before scheme 2 wrote of `numbered`."""


def numbered() -> BlockLoRA:
    """A concept whose numbers are the same on every machine."""
    lora = Recipe().make("<hero>", 3)
    layers = {name: layer.with_up(ramp(layer.up)).with_down(ramp(layer.down)) for name, layer in lora.layers.items()}
    return replace(lora, layers=layers, embeddings={name: ramp(one) for name, one in lora.embeddings.items()})


def ramp(like: torch.Tensor) -> torch.Tensor:
    return (torch.arange(like.numel()) % 97 / 64).reshape(like.shape)


def test_a_file_of_scheme_1_has_the_bytes_that_it_had() -> None:
    assert sha256(encode(numbered())).hexdigest() == GOLDEN
    known = block("<a>", 3, 1)
    parts = replace(known, layers={name: replace(layer, parts=()) for name, layer in known.layers.items()})
    assert encode(known) == encode(parts)


def test_a_plain_lora_says_no_parts(tmp_path: Path) -> None:
    lora = block("<a>", 3, 2)
    whole = {
        name: Layer(layer.full_up(), layer.down, (range(layer.out_features),), layer.out_features, parts=layer.parts)
        for name, layer in lora.layers.items()
    }
    path = save(tmp_path / "a.safetensors", replace(lora, layers=whole, scheme=None, slot=None))
    assert "parts" not in entries(path)[SINGLE] and load(path).layers[SINGLE].parts == ()


def test_two_slots_merge_to_the_sum() -> None:
    a, b = block("<a>", 1, 2), block("<b>", 6, 2)
    merged = merge((a, b))
    assert merged.shared_rows == 0
    for name in (SINGLE, PLAIN):
        found = sum(lora.layers[name].dense() for lora in merged.members)
        torch.testing.assert_close(found, a.layers[name].dense() + b.layers[name].dense())


@pytest.mark.parametrize(("one", "two", "rows"), [(0, 0, "rows 0-1"), (0, 6, "rows 12-13")])
def test_files_of_both_schemes_that_share_rows_are_told(one: int, two: int, rows: str) -> None:
    """Slot 0 of scheme 1 holds rows 0 to 13 of the fused weight, which in scheme 2 are Q of slots 0 to 6."""
    old, new = block("<old>", one, 1), block("<new>", two, 2)
    with pytest.raises(ValueError, match=rf"<old> .* and <new> .* share rows in {1 + (one == two)} layers, .*{rows}"):
        merge((old, new))


def test_files_of_both_schemes_merge_where_they_share_no_rows() -> None:
    old, new = block("<old>", 1, 1, (PLAIN,)), block("<new>", 2, 2)
    assert merge((old, new)).shared_rows == 0


def test_the_ledger_goes_by_rows_across_schemes(tmp_path: Path) -> None:
    old = save(tmp_path / "old.safetensors", block("<old>", 0, 1, (SINGLE,)))
    known: tuple[Parts, ...] = (PARTS,)
    # As long as nobody says that this weight has parts, it holds the slot of its number.
    assert set(owners_of_slots(tmp_path, "flux", Scheme(2, 8))) == {0}
    assert set(owners_of_slots(tmp_path, "flux", Scheme(2, 8), known)) == set(range(7))
    assert set(owners_of_slots(tmp_path, "flux", Scheme(1, 8))) == {0}
    new = save(tmp_path / "new.safetensors", block("<new>", 7, 2))
    one, two = tables(tmp_path)
    assert (one.scheme, two.scheme) == (Scheme(1, 8), Scheme(2, 8))
    assert two.held == {**{slot: [old] for slot in range(7)}, 7: [new]} and two.clashes == {}
    # Slot 7 of scheme 2 holds rows 14-15, 30-31, 46-47 and 104-111: of slots 1, 2, 3 and 7 of scheme 1.
    assert one.held == {0: [old], 1: [new], 2: [new], 3: [new], 7: [new]}
    assert describe_tables([one, two]).count("flux, 8 slots\n") == 1
    assert "flux, 8 slots (row scheme 2)\n  slot 0: old.safetensors" in describe_tables([two])


def test_the_map_of_rows_draws_any_number_of_parts() -> None:
    stack = (block("<a>", 1, 2), block("<b>", 2, 2))
    assert report_picture(stack, inspect(stack)).size[1] > 300
