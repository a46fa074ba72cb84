"""What a file says about itself, by its header alone."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import safetensors.torch
import torch

from blocklora_core.concept.rows import Scheme
from blocklora_core.files.catalogue import index
from blocklora_core.files.catalogue.index import Index, block_of, known
from blocklora_core.files.catalogue.summary import Summary
from blocklora_core.files.io import load, save
from blocklora_core.files.shown import trigger_words, unheard_note
from blocklora_core.training.data.advice import advice
from tests.core.samples import QUERY, Recipe

RECIPE = Recipe(shapes={QUERY: (320, 4)})
STEM = "lora_unet_mid_block_attentions_0_transformer_blocks_0_attn1_to_q"


def plain(path: Path, metadata: dict[str, str] | None = None, **more: torch.Tensor) -> Path:
    tensors = {f"{STEM}.lora_up.weight": torch.zeros(8, 2), f"{STEM}.lora_down.weight": torch.zeros(2, 4), **more}
    safetensors.torch.save_file(tensors, path, metadata)
    return path


def summary(path: Path) -> Summary:
    found = known(path)
    assert isinstance(found, Summary)
    return found


def test_a_row_block_tells_its_slot_and_name(tmp_path: Path) -> None:
    path = save(tmp_path / "a.safetensors", RECIPE.make("<ada>", 3))
    found = summary(path)
    assert (found.concept, found.base, found.words, found.apart) == ("<ada>", "sd15", "<ada>", "rows")
    assert found.block is not None and (found.block.slot, found.block.scheme) == (3, Scheme())


def test_words_and_names_are_those_that_loading_gives(tmp_path: Path) -> None:
    tags = {"ss_tag_frequency": json.dumps({"1_x": {"ohwx": 3}}), "ss_num_train_images": "12", "ss_steps": "1"}
    bundle = {"bundle_emb.zed.string_to_param.*": torch.zeros(2, 768)}
    paths = [
        plain(tmp_path / "tagged.safetensors", {**tags, "ss_base_model_version": "sdxl_base_v1-0"}),
        plain(tmp_path / "phrase.safetensors", {"modelspec.trigger_phrase": "zwx man"}),
        plain(tmp_path / "my file.safetensors"),
        plain(tmp_path / "bundled.safetensors", None, **bundle),
        save(tmp_path / "own.safetensors", RECIPE.make("<own>", 1)),
        save(tmp_path / "saved.safetensors", replace(RECIPE, scheme=None).make("<p>", 0)),
    ]
    for path in paths:
        lora, found = load(path), summary(path)
        assert (found.concept, found.words, found.base) == (lora.concept.name, trigger_words(lora), lora.base), path
        assert found.named == bool(unheard_note(lora, "a red hat")), path
    assert summary(paths[0]).images == 12 and summary(paths[1]).images is None
    assert summary(paths[0]).base == "sdxl"


def test_what_keeps_a_file_apart(tmp_path: Path) -> None:
    loha = {f"{STEM}2.hada_{name}": torch.zeros(4, 4) for name in ("w1_a", "w1_b", "w2_a", "w2_b")}
    assert summary(plain(tmp_path / "a.safetensors")).apart == "collect"
    assert summary(plain(tmp_path / "b.safetensors", None, **loha)).apart == "added"
    (tmp_path / "c.pt").write_bytes(b"never opened")
    assert summary(tmp_path / "c.pt").apart == "collect" and summary(tmp_path / "c.pt").concept == "c"


def test_what_is_no_lora_says_why(tmp_path: Path) -> None:
    (tmp_path / "bad.safetensors").write_bytes(b"<!DOCTYPE html>")
    assert "expected a safetensors file" in str(known(tmp_path / "bad.safetensors"))
    assert "No such file" in str(known(tmp_path / "gone.safetensors"))
    safetensors.torch.save_file({"first_stage_model.x": torch.zeros(1)}, tmp_path / "vae.safetensors")
    assert "checkpoint" in summary(tmp_path / "vae.safetensors").problem


@pytest.mark.parametrize("images", ["", "many", "-3", "0", "9" * 30, "1e3"])
def test_odd_counts_are_no_counts(tmp_path: Path, images: str) -> None:
    assert summary(plain(tmp_path / "a.safetensors", {"ss_num_train_images": images})).images is None


def test_row_sets_decide_who_shares_rows(tmp_path: Path) -> None:
    recipes = {
        "three": (RECIPE, 3), "again": (RECIPE, 3), "four": (RECIPE, 4), "xl": (replace(RECIPE, base="sdxl"), 3),
        "any": (replace(RECIPE, base=""), 3), "wide": (replace(RECIPE, scheme=Scheme(slots=8)), 1),
    }  # fmt: skip
    blocks = {
        name: block_of(save(tmp_path / f"{name}.safetensors", recipe.make("<a>", slot)))
        for name, (recipe, slot) in recipes.items()
    }
    three = blocks["three"]
    assert three is not None
    assert {name for name, block in blocks.items() if block and three.shares_rows(block)} == {
        "three", "again", "any", "wide",
    }  # fmt: skip
    assert {name for name, block in blocks.items() if block and block.shares_rows(three)} == {
        "three", "again", "any", "wide",
    }  # fmt: skip


def test_advice_names_what_to_mind() -> None:
    fine = {f"{number}.png": (768, 512) for number in range(12)}
    assert advice(fine, 12) == []
    told = advice({"a.png": (64, 64), "b.png": (2000, 600)}, 2)
    assert [line.split()[0] for line in told] == ["Few", "1", "1", "Mixed"]
    assert "a.png (64 x 64)" in told[1] and "b.png" in told[2] and "64 x 64 to 2000 x 600" in told[3]
    assert "and 9 more" in advice(dict.fromkeys(fine, (64, 64)), 12)[0]


def test_headers_are_read_once_also_by_the_next_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plain = tmp_path / "loras" / "plain.safetensors"
    plain.parent.mkdir()
    block = save(tmp_path / "loras" / "block.safetensors", RECIPE.make("<a>", 3))
    plain.write_bytes(b"no header")
    file = tmp_path / "user" / "headers.jsonl"
    first = Index(lambda: file)
    told = {path: first.known(path) for path in (block, plain)}
    monkeypatch.setattr(index, "_YOUNG", -(10**12))  # as if they had lain there for long
    first = Index(lambda: file)
    assert {path: first.known(path) for path in (block, plain)} == told
    first.save()

    def unread(_path: Path) -> Summary:
        raise AssertionError("read again")

    monkeypatch.setattr(index, "read_summary", unread)
    with file.open("ab") as torn:
        torn.write(b'["x", 1, 2\n[[[\n{}\n["y", 1, 2, 3, ["a"]]\n')
    assert {path: Index(lambda: file).known(path) for path in (block, plain)} == told
    monkeypatch.undo()
    # A file that was written to is another one, and one of another format is none.
    save(block, RECIPE.make("<b>", 4), overwrite=True)
    changed = Index(lambda: file)
    assert isinstance(found := changed.known(block), Summary) and found.concept == "<b>"
    file.write_bytes(b"{}\n" + file.read_bytes())
    assert isinstance(found := Index(lambda: file).known(block), Summary) and found.concept == "<b>"


def test_the_index_does_not_grow_for_ever(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(index, "_YOUNG", -(10**12))
    file = tmp_path / "headers.jsonl"
    here = Index(lambda: file)
    for number in range(12):
        here.known(save(tmp_path / "a.safetensors", RECIPE.make("<a>", number), overwrite=True))
        here.save()
    assert 2 <= len(file.read_bytes().splitlines()) <= 4
