"""Files and folders: what Save writes, what Load and Images read."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from blocklora.blocklora_core.concept.concept import BlockLoRA
from blocklora.blocklora_core.files.io import load
from blocklora.blocklora_core.host.train.folders import picture_folders
from PIL import Image

from tests.host.tiny import Base, adaptable, make_lora

Make = Callable[..., BlockLoRA]


@pytest.fixture
def loras(folders: Path) -> Path:
    return folders / "models" / "loras"


@pytest.fixture
def make(base: Base) -> Make:
    stems = list(adaptable(base))[:2]
    return lambda name="<ada>", slot=0: make_lora(base, name, slot, stems=stems)


@pytest.fixture(scope="module")
def node(pack: ModuleType) -> dict[str, Any]:
    return {kind.__name__: kind for kind in pack.NODES}


def files(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def test_saves_each_concept_under_its_name(node: dict[str, Any], loras: Path, make: Make) -> None:
    stack, paths = node["BlockLoRASave"].execute((make(), make("<bob>", 1)), "blocklora/", "keep both").result
    assert files(loras) == ["blocklora/ada.safetensors", "blocklora/bob.safetensors"]
    assert paths.splitlines() == [str(loras / name) for name in files(loras)]
    assert [lora.source for lora in stack] == ["ada.safetensors", "bob.safetensors"]
    assert load(loras / "blocklora" / "bob.safetensors").slot == 1


def test_keep_both_numbers_the_second(node: dict[str, Any], loras: Path, make: Make) -> None:
    for _ in range(3):
        node["BlockLoRASave"].execute((make(),), "", "keep both")
    assert files(loras) == ["ada.safetensors", "ada_02.safetensors", "ada_03.safetensors"]


def test_overwrite_replaces(node: dict[str, Any], loras: Path, make: Make) -> None:
    for slot in (0, 1):
        node["BlockLoRASave"].execute((make(slot=slot),), "", "overwrite")
    assert files(loras) == ["ada.safetensors"]
    assert load(loras / "ada.safetensors").slot == 1


@pytest.mark.parametrize("broken", [("fsync",), ("replace", "link")])
def test_a_failed_save_leaves_the_old_file_and_no_other(
    node: dict[str, Any], loras: Path, make: Make, monkeypatch: pytest.MonkeyPatch, broken: tuple[str, ...]
) -> None:
    node["BlockLoRASave"].execute((make(),), "", "overwrite")

    def fail(*_arguments: Any, **_more: Any) -> None:
        raise OSError("disk full")

    for step in broken:
        monkeypatch.setattr(os, step, fail)
    for name, slot in (("<ada>", 1), ("<bob>", 2)):
        with pytest.raises(OSError, match="disk full"):
            node["BlockLoRASave"].execute((make(name, slot),), "", "overwrite")
    assert files(loras) == ["ada.safetensors"]
    assert load(loras / "ada.safetensors").slot == 0


@pytest.mark.parametrize("prefix", ["../", "/tmp/", "a/../../"])
def test_a_prefix_outside_the_loras_folder_is_refused(
    node: dict[str, Any], loras: Path, make: Make, prefix: str
) -> None:
    with pytest.raises(ValueError, match="expected a place inside the loras folder"):
        node["BlockLoRASave"].execute((make(),), prefix, "keep both")
    assert files(loras.parent.parent) == []


@pytest.mark.usefixtures("folders")
def test_load_gives_the_concept_at_its_strength(node: dict[str, Any], make: Make) -> None:
    node["BlockLoRASave"].execute((make(),), "blocklora/", "keep both")
    (lora,), name, words, _ = node["BlockLoRALoad"].execute("blocklora/ada.safetensors", 0.5).result
    assert (lora.strength, name, words, lora.slot) == (0.5, "<ada>", "<ada>", 0)


@pytest.mark.usefixtures("folders")
def test_load_refuses_a_name_that_is_not_there(node: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"expected one of the loras folder, got 'no\.safetensors'. Press R"):
        node["BlockLoRALoad"].execute("no.safetensors", 1.0)


def test_stack_joins_in_order_and_multiplies_strengths(node: dict[str, Any], make: Make) -> None:
    inputs = {
        "stack_1": (make().with_strength(0.5),),
        "strength_1": 2.0,
        "stack_3": (make("<bob>", 1),),
        "strength_3": 0.5,
    }
    (stack,) = node["BlockLoRAStack"].execute(**inputs).result
    assert [(lora.concept.name, lora.strength) for lora in stack] == [("<ada>", 1.0), ("<bob>", 0.5)]


def test_merge_reports_what_it_did(node: dict[str, Any], base: Base, make: Make) -> None:
    stack = (make(), make("<bob>", 1))
    *_, report = node["BlockLoRAMerge"].execute(base.model, base.clip, stack, "auto", "error").result
    assert "2 concepts merged by per_row" in report and "<ada>: slot 0, e.g. rows 0-" in report
    assert "Names that prompts understand: <ada>, <bob>" in report


def picture(path: Path, size: tuple[int, int] = (16, 8)) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGBA", size, (255, 0, 0, 0)).save(path)


def test_reads_pictures_and_captions(node: dict[str, Any], folders: Path) -> None:
    picture(folders / "input" / "set" / "b.png")
    picture(folders / "input" / "set" / "a.png", (8, 8))
    (folders / "input" / "set" / "a.txt").write_text("a red square\n", "utf-8")
    images, captions, *_ = node["BlockLoRAImages"].execute("set", "a picture").result
    assert [tuple(image.shape) for image in images] == [(1, 8, 8, 3), (1, 8, 16, 3)]
    assert captions == ["a red square", "a picture"]
    assert bool((images[0] == 1).all()), "transparent pixels become white"


@pytest.mark.parametrize("cleared", ["", " \n"])
def test_a_cleared_caption_is_none(node: dict[str, Any], folders: Path, cleared: str) -> None:
    """The panel empties the file and shows the default in its place."""
    for name in ("a.png", "b.png", "10_ohwx man/c.png"):
        picture(folders / "input" / "set" / name)
    (folders / "input" / "set" / "a.txt").write_text(cleared, "utf-8")
    (folders / "input" / "set" / "10_ohwx man" / "c.txt").write_text(cleared, "utf-8")
    (folders / "input" / "set" / "b.txt").write_text("a red square", "utf-8")
    output = node["BlockLoRAImages"].execute("set", "a picture")
    assert output.result[1] == ["a picture", "a red square", *["a picture"] * 10]
    assert "3 pictures, 1 with a caption of their own" in output.result[3]
    assert node["BlockLoRAImages"].execute("set", "").result[1] == ["", "a red square", *["ohwx man"] * 10]


def test_pictures_that_count_zero_times_are_no_pictures(node: dict[str, Any], folders: Path) -> None:
    picture(folders / "input" / "set" / "0_reg man" / "a.png")
    with pytest.raises(ValueError, match="none in it but some below it: 0_reg man"):
        node["BlockLoRAImages"].execute("set", "")
    assert len(node["BlockLoRAImages"].execute("set/0_reg man", "").result[0]) == 1


def test_empty_masks_are_named(node: dict[str, Any], folders: Path) -> None:
    picture(folders / "input" / "set" / "a.png")
    Image.new("RGB", (16, 8)).save(folders / "input" / "set" / "b.png")
    output = node["BlockLoRAImages"].execute("set", "")
    assert output.ui["blocklora_warnings"] == ("Empty masks, which Train refuses: a.png",)


def test_masks_come_from_their_file_else_from_what_is_not_transparent(node: dict[str, Any], folders: Path) -> None:
    folder = folders / "input" / "masked"
    folder.mkdir()
    for name in ("a", "b", "c"):
        Image.new("RGBA", (16, 8), (255, 0, 0, 51 if name == "b" else 255)).save(folder / f"{name}.png")
    half = Image.new("L", (16, 8))
    half.paste(255, (0, 0, 8, 8))
    half.save(folder / "a-masklabel.png")
    pictures, _, masks, _ = node["BlockLoRAImages"].execute("masked", "").result
    assert len(pictures) == 3
    assert [mask.shape for mask in masks] == [(1, 8, 16)] * 3
    assert [round(float(mask.mean()), 3) for mask in masks] == [0.5, 0.2, 1.0]


def test_a_mask_of_another_size_is_refused(node: dict[str, Any], folders: Path) -> None:
    folder = folders / "input" / "askew"
    folder.mkdir()
    Image.new("RGB", (16, 8)).save(folder / "a.png")
    Image.new("L", (8, 8)).save(folder / "a-masklabel.png")
    with pytest.raises(ValueError, match=r"a-masklabel\.png: expected the size of a\.png"):
        node["BlockLoRAImages"].execute("askew", "")


def test_a_changed_caption_changes_the_fingerprint(node: dict[str, Any], folders: Path) -> None:
    picture(folders / "input" / "set" / "a.png")
    before = node["BlockLoRAImages"].fingerprint_inputs("set", "")
    (folders / "input" / "set" / "a.txt").write_text("new", "utf-8")
    assert node["BlockLoRAImages"].fingerprint_inputs("set", "") != before


def test_an_empty_folder_is_refused(node: dict[str, Any], folders: Path) -> None:
    (folders / "input" / "empty").mkdir()
    with pytest.raises(ValueError, match=r"expected pictures .* found none"):
        node["BlockLoRAImages"].execute("empty", "")


@pytest.mark.parametrize("name", ["../output", "/", "nowhere"])
def test_a_folder_outside_input_is_refused(node: dict[str, Any], folders: Path, name: str) -> None:
    picture(folders / "output" / "a.png")
    with pytest.raises(ValueError, match="expected a folder below ComfyUI's input folder"):
        node["BlockLoRAImages"].execute(name, "")


def test_kohya_s_parent_folder_is_listed_and_its_repeats_count(node: dict[str, Any], folders: Path) -> None:
    for name in ("2_ohwx man", "1_hat"):
        picture(folders / "input" / "img" / name / "a.png")
    (folders / "input" / "img" / "1_hat" / "a.caption").write_text("a hat", "utf-8")
    assert picture_folders() == ["img", "img/1_hat", "img/2_ohwx man"]
    output = node["BlockLoRAImages"].execute("img", "")
    assert output.result[1] == ["a hat", "ohwx man", "ohwx man"]
    assert node["BlockLoRAImages"].execute("img", "a photo").result[1] == ["a hat", "a photo", "a photo"]
    assert "2 pictures, 1 with a caption of their own, 3 with the repeats" in "".join(output.ui["text"])
    before = node["BlockLoRAImages"].fingerprint_inputs("img", "")
    (folders / "input" / "img" / "1_hat" / "a.caption").write_text("a red hat", "utf-8")
    assert node["BlockLoRAImages"].fingerprint_inputs("img", "") != before


def test_a_folder_of_folders_names_them(node: dict[str, Any], folders: Path) -> None:
    picture(folders / "input" / "all" / "dogs" / "a.png")
    with pytest.raises(ValueError, match="none in it but some below it: dogs"):
        node["BlockLoRAImages"].execute("all", "")


def test_skipped_files_are_counted_and_named(node: dict[str, Any], folders: Path) -> None:
    picture(folders / "input" / "set" / "a.png")
    for name in ("b.heic", "Thumbs.db", "._a.png", "gone.txt"):
        (folders / "input" / "set" / name).write_bytes(b"x")
    text = "".join(node["BlockLoRAImages"].execute("set", "").ui["text"])
    assert "2 files skipped" in text and "b.heic, gone.txt" in text


@pytest.mark.skipif(os.name == "nt", reason="links need rights there")
def test_a_linked_folder_works_and_a_loop_ends(node: dict[str, Any], folders: Path, tmp_path: Path) -> None:
    picture(tmp_path / "elsewhere" / "a.png")
    (folders / "input" / "link").symlink_to(tmp_path / "elsewhere")
    (folders / "input" / "deep").mkdir()
    (folders / "input" / "deep" / "loop").symlink_to(folders / "input")
    assert picture_folders() == ["link"]
    assert len(node["BlockLoRAImages"].execute("link", "").result[0]) == 1


def test_a_file_that_is_no_picture_is_refused(node: dict[str, Any], folders: Path) -> None:
    (folders / "input" / "set").mkdir()
    (folders / "input" / "set" / "a.png").write_text("no picture", "utf-8")
    with pytest.raises(ValueError, match=r"a\.png: expected a readable picture"):
        node["BlockLoRAImages"].execute("set", "")
