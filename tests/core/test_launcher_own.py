"""`run.py demo` with a checkpoint and pictures of one's own: what becomes of the demo's graph."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from launcher.errors import LauncherError
from launcher.own import Concept, Own, own, settings_of
from launcher.workflow import Graph

SETTINGS = {"steps": 300, "learning_rate": 1e-3, "preset": "standard", "seed": 9, "concept": "<me>"}


def demo() -> Graph:
    def train(name: str, word: str, pictures: str) -> dict[str, Any]:
        inputs = {"concept": f"<{name}>", "class_word": word, "seed": 2, "steps": 160, "images": [pictures, 0]}
        return {"class_type": "BlockLoRATrain", "inputs": inputs, "_meta": {"title": f"Train <{name}>"}}

    nodes: list[dict[str, Any]] = [
        {"class_type": "CheckpointLoaderSimple", "inputs": {"ckpt_name": "demo.safetensors"}},
        {"class_type": "BlockLoRAImages", "inputs": {"folder": "blocklora_demo/amelia", "default_caption": ""}},
        train("amelia", "woman", "1"),
        {"class_type": "BlockLoRAImages", "inputs": {"folder": "blocklora_demo/zed", "default_caption": ""}},
        train("zed", "man", "3"),
        {"class_type": "CLIPTextEncode", "inputs": {"text": "a personas <zed> beside an <amelia>"}},
        {"class_type": "EmptyLatentImage", "inputs": {"width": 256, "height": 128, "batch_size": 4}},
        {"class_type": "BlockLoRARegion", "inputs": {"x": 0.5, "y": 0.0, "width": 0.5, "height": 1.0}},
        {"class_type": "KSampler", "inputs": {"cfg": 2.0, "seed": 3}},
        {"class_type": "ImageScale", "inputs": {"width": 512, "height": 256}},
    ]
    return {str(number): node for number, node in enumerate(nodes)}


@pytest.fixture
def folders(tmp_path: Path) -> list[str]:
    for name in ("Ada L.", "42"):
        (tmp_path / "photos" / name).mkdir(parents=True)
        (tmp_path / "photos" / name / "one.png").write_bytes(name.encode())
    return [f"{tmp_path}/photos/Ada L.=woman", f"{tmp_path}/photos/42"]


@pytest.fixture
def base(tmp_path: Path) -> Path:
    found = tmp_path / "kept elsewhere" / "my v3.safetensors"
    found.parent.mkdir()
    found.touch()
    return found


def test_names_words_and_pictures_take_the_place_of_the_demo_s(folders: list[str], tmp_path: Path) -> None:
    chosen = own(None, folders)
    made = chosen.graph(demo(), SETTINGS)
    assert made["5"]["inputs"]["text"] == "a personas <c_42> beside an <ada_l>"
    assert (made["2"]["inputs"]["concept"], made["2"]["inputs"]["class_word"]) == ("<ada_l>", "woman")
    assert (made["4"]["inputs"]["concept"], made["4"]["inputs"]["class_word"]) == ("<c_42>", "person")
    assert made["2"]["_meta"]["title"] == "Train <ada_l>"
    # The base is the demo's, and so are its size and settings.
    assert made["2"]["inputs"]["steps"] == 160 and made["6"] == demo()["6"] and made["9"] == demo()["9"]
    chosen.copy_pictures(tmp_path / "input")
    chosen.copy_pictures(tmp_path / "input")
    for node, content in (("1", b"Ada L."), ("3", b"42")):
        assert (tmp_path / "input" / made[node]["inputs"]["folder"] / "one.png").read_bytes() == content
    assert chosen.server_arguments(tmp_path) == []


def test_another_base_has_its_size_and_the_node_s_own_settings(base: Path, tmp_path: Path) -> None:
    chosen = own(base, [], 512)
    made = chosen.graph(demo(), SETTINGS)
    assert made["0"]["inputs"]["ckpt_name"] == base.name
    assert made["2"]["inputs"] == {**demo()["2"]["inputs"], "steps": 300, "resolution": 512}
    assert made["6"]["inputs"] == {"width": 1024, "height": 512, "batch_size": 4}
    assert made["7"] == demo()["7"]
    assert made["8"]["inputs"]["cfg"] > demo()["8"]["inputs"]["cfg"]
    assert made["9"]["inputs"] == {"width": 0, "height": 0}
    assert made["1"] == demo()["1"] and made["5"]["inputs"] == {"text": "a <zed> beside an <amelia>"}
    option, file = chosen.server_arguments(tmp_path)
    assert option == "--extra-model-paths-config"
    assert json.loads(Path(file).read_text("utf-8"))["own"]["checkpoints"] == str(base.parent)


def test_no_picture_of_the_user_s_is_removed(tmp_path: Path) -> None:
    """Pictures that lie where they would be copied to stay; a folder around that place, or within it, is refused."""
    kept = tmp_path / "blocklora_own" / "ada"
    (kept / "more").mkdir(parents=True)
    (kept / "one.png").write_bytes(b"1")
    Own(concepts=(Concept(kept, "ada", "woman"),)).copy_pictures(tmp_path)
    for folder in (tmp_path, kept / "more"):
        with pytest.raises(LauncherError, match="expected a folder outside of"):
            Own(concepts=(Concept(folder, "ada", "woman"),)).copy_pictures(tmp_path)
    assert (kept / "one.png").read_bytes() == b"1"


def test_a_caption_written_into_the_copy_stays_and_a_picture_taken_away_goes(tmp_path: Path) -> None:
    source, target = tmp_path / "ada", tmp_path / "input" / "blocklora_own" / "ada"
    source.mkdir()
    for name in ("one.png", "one.txt", "two.png", "two.txt", "gone.png", "two.png.caption"):
        (source / name).write_text(f"first {name}", "utf-8")
    chosen = Own(concepts=(Concept(source, "ada", "woman"),))
    chosen.copy_pictures(tmp_path / "input")
    later = (source / "one.txt").stat().st_mtime + 10
    for caption, when in ((target / "one.txt", later), (target / "three.txt", later), (source / "two.txt", later)):
        caption.write_text("later", "utf-8")
        os.utime(caption, (when, when))
    os.utime(target / "two.png.caption", (later, later))
    (source / "two.png.caption").write_text("earlier", "utf-8")
    (source / "gone.png").unlink()
    (source / "two.png").write_text("other", "utf-8")
    chosen.copy_pictures(tmp_path / "input")
    assert {path.name: path.read_text("utf-8") for path in target.iterdir()} == {
        "one.png": "first one.png", "one.txt": "later", "two.png": "other", "two.txt": "later", "three.txt": "later",
        "two.png.caption": "first two.png.caption",
    }  # fmt: skip


def test_what_a_node_begins_with() -> None:
    required = {"steps": ["INT", {"default": 300}], "model": ["MODEL"], "images": ["IMAGE", {"tooltip": "they"}]}
    node = {"input": {"required": required, "optional": {"preset": ["COMBO", {"default": "quick"}]}}}
    assert settings_of(node) == {"steps": 300, "preset": "quick"}
    assert settings_of({"input": {"required": {}}}) == {}


def test_what_is_not_there_is_told(folders: list[str], base: Path, tmp_path: Path) -> None:
    assert own(None, []) == Own()
    for chosen, pictures, told in (
        (tmp_path, [], "--base: expected a checkpoint file"),
        (base.with_name("other"), [], "--base: expected a checkpoint file"),
        (base, folders[:1], "two concepts, got 1"),
        (base, [*folders, folders[0]], "blocklora_core cast"),
        (base, [folders[0], "nowhere=man"], "expected a folder, got nowhere"),
        (base, [folders[0], folders[0]], "both folders would be called <ada_l>"),
    ):
        with pytest.raises(LauncherError, match=told):
            own(chosen, pictures)


def test_a_side_is_one_that_can_be_painted_by_a_base_of_one_s_own(base: Path) -> None:
    assert own(base, [], 1024).graph(demo(), SETTINGS)["2"]["inputs"]["resolution"] == 1024
    for side in (0, -64, 500, 8000):
        with pytest.raises(LauncherError, match=f"multiple of 8 from 64 to 4096, got {side}"):
            own(base, [], side)
    with pytest.raises(LauncherError, match="for a --base of your own"):
        own(None, [], 512)
