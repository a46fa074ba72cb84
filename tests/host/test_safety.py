"""A stranger's files and workflows in ComfyUI: what reaches the page, what is written, who gets which slot."""

from __future__ import annotations

import json
import os
import re
import signal
import sys
import time
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import comfy.model_management
import pytest
import torch
from blocklora.blocklora_core.concept.concept import BlockLoRA, Concept
from blocklora.blocklora_core.concept.gram import Grams
from blocklora.blocklora_core.files.io import load, save, serialise
from blocklora.blocklora_core.files.untrusted.header import tensors_in
from blocklora.blocklora_core.files.untrusted.text import MOST_LETTERS
from blocklora.blocklora_core.host import claims, disk, ledger
from blocklora.blocklora_core.host.page import tell
from blocklora.blocklora_core.host.text.tokens import with_concepts
from blocklora.blocklora_core.host.train.collect import CollectJob
from blocklora.blocklora_core.host.train.folders import read_pictures
from blocklora.blocklora_core.host.train.layers import layer_choice
from blocklora.blocklora_core.host.train.pictures import make_dataset
from blocklora.blocklora_core.host.train.stopping import stopping
from blocklora.blocklora_core.host.use.kept_grams import GramStore
from blocklora.blocklora_core.host.use.lora_list import load_list
from blocklora.blocklora_core.training.data.captions import CaptionRules
from PIL import Image

from tests.host.tiny import CONTIGUOUS, Base, adaptable, make_lora

BASE = "sd15-26M"


@pytest.fixture
def small(base: Base, folders: Path, monkeypatch: pytest.MonkeyPatch) -> BlockLoRA:
    assert folders.is_dir()
    monkeypatch.setattr(ledger, "_given", {})
    return make_lora(base, "<ada>", 0, stems=list(adaptable(base))[:1])


def told(monkeypatch: pytest.MonkeyPatch, text: str) -> str:
    """What a page gets of a line of progress."""
    said: list[str] = []
    server = ModuleType("server")
    instance = SimpleNamespace(send_progress_text=lambda line, _node: said.append(line))
    server.PromptServer = SimpleNamespace(instance=instance)  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "server", server)
    tell("3", text)
    return said[0]


@pytest.mark.parametrize("text", ["evil.com: step 1", "https://evil.com/a", "[[here|https://evil.com]]", "a@b.org"])
def test_progress_holds_no_links(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    line = told(monkeypatch, text)
    assert line.replace("\u2060", "") == text
    assert not re.search(r"\[\[|\w\.[a-z]|@\w|:/|//", line)
    assert told(monkeypatch, "0.51, step 3 of 10: <a>. Next") == "0.51, step 3 of 10: &lt;a&gt;. Next"


@pytest.mark.parametrize("text", ["<img src=x onerror=alert(1)>", "<hero>, 1 of 1", "a\"b'c&d", "x" * 10_000])
def test_progress_is_text_on_the_page(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    line = told(monkeypatch, text)
    assert not set("<>\"'") & set(line) and len(line) < 6 * MOST_LETTERS


@pytest.mark.parametrize(
    "prefix",
    [
        "../",
        "a/../../",
        "/tmp/",
        "a\0b/",
        "x" * 5000,
        "con/",
        "a/Nul.x/",
        "a/" * 1500,
        "a\\aux /",
        "\u202e/",
        "a\nb/",
        "\x1b[2J",
    ],
)
def test_nothing_is_written_outside_the_folder(folders: Path, small: BlockLoRA, prefix: str) -> None:
    with pytest.raises(ValueError, match="xpected"):
        disk.save_stack((small,), prefix, overwrite=True)
    assert not list((folders / "models").glob("*.safetensors"))


def test_a_link_out_of_the_folder_is_no_way_out(small: BlockLoRA, tmp_path: Path) -> None:
    (disk.loras_folder() / "out").symlink_to(tmp_path)
    with pytest.raises(ValueError, match="inside the loras folder"):
        disk.save_stack((small,), "out/", overwrite=False)


@pytest.mark.parametrize("content", [b"not ours", b""])
def test_overwrite_is_for_the_concepts_own_file(small: BlockLoRA, content: bytes) -> None:
    mine = disk.loras_folder() / "ada.safetensors"
    mine.write_bytes(content)
    _, (path,) = disk.save_stack((small,), "", overwrite=True)
    assert mine.read_bytes() == content and path.name == "ada_02.safetensors"
    mine.unlink()
    disk.save_stack((small,), "", overwrite=True)
    assert disk.save_stack((small,), "", overwrite=True)[1] == [mine.resolve()]


def test_another_concept_of_one_file_name_is_not_overwritten(small: BlockLoRA) -> None:
    for name in ("<a*b>", "<a?b>"):
        disk.save_stack((small.renamed(name),), "", overwrite=True)
    names = {load(path).concept.name for path in disk.loras_folder().glob("a_b*.safetensors")}
    assert names == {"<a*b>", "<a?b>"}


@pytest.mark.parametrize("name", ["<con>", "<Nul>", "<..>", "<.a>", "<com1>", "<COM\u00b9>"])
def test_file_names_are_names_everywhere(name: str) -> None:
    made = disk.safe_name(Concept(name))
    assert not made.startswith(".") and made.lower() not in ("con", "nul", "com1", "com\u00b9", "")


@pytest.mark.usefixtures("small")
def test_a_claim_is_seen_by_every_server_and_given_back(monkeypatch: pytest.MonkeyPatch) -> None:
    assert ledger.choose_slot(BASE, CONTIGUOUS, Concept("<a>")) == 0
    monkeypatch.setattr(ledger, "_given", {})  # another server
    assert ledger.choose_slot(BASE, CONTIGUOUS, Concept("<b>")) == 1
    ledger.release_slot(BASE, CONTIGUOUS, Concept("<a>"))
    assert ledger.choose_slot(BASE, CONTIGUOUS, Concept("<c>")) == 0


@pytest.mark.usefixtures("small")
def test_a_claim_left_behind_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    assert ledger.choose_slot(BASE, CONTIGUOUS, Concept("<a>")) == 0
    (claim,) = claims.claims()
    long_ago = time.time() - claims.LASTING - 1
    os.utime(claim.path, (long_ago, long_ago))
    monkeypatch.setattr(ledger, "_given", {})
    assert ledger.choose_slot(BASE, CONTIGUOUS, Concept("<b>")) == 0


@pytest.mark.usefixtures("small")
def test_damaged_claims_hold_nothing() -> None:
    folder = disk.loras_folder() / "blocklora" / "slots"
    folder.mkdir(parents=True)
    sound = {"base": BASE, "scheme": CONTIGUOUS.to_dict(), "slot": 1, "concept": "<a>"}
    odd = [
        {**sound, **change}
        for change in (
            {"concept": "<img src=x>"},
            {"concept": []},
            {"base": 1},
            {"base": "\u202e"},
            {"slot": 99},
            {"scheme": {}},
        )
    ]
    for number, text in enumerate(("", "[", "{}", "[" * 10_000, *map(json.dumps, odd))):
        (folder / f"{number}.claim").write_text(text)
    os.mkfifo(folder / "pipe.claim")
    assert list(claims.claims()) == []
    (folder / "sound.claim").write_text(json.dumps(sound))
    assert [claim.concept for claim in claims.claims()] == ["<a>"]


@pytest.mark.usefixtures("small")
def test_a_long_training_keeps_its_slot() -> None:
    ledger.choose_slot(BASE, CONTIGUOUS, Concept("<a>"))
    (claim,) = claims.claims()
    long_ago = time.time() - claims.LASTING + 5
    os.utime(claim.path, (long_ago, long_ago))
    ledger.renew_slots()
    assert time.time() - claim.path.stat().st_mtime < 60


def test_cancels_are_heard_while_files_and_pictures_are_read(base: Base, folders: Path, small: BlockLoRA) -> None:
    save(disk.loras_folder() / "a.safetensors", small)
    (folders / "input" / "set").mkdir()
    Image.new("RGB", (16, 16)).save(folders / "input" / "set" / "a.png")
    picture = torch.rand(1, 64, 64, 3)
    for action in (
        ledger.slot_tables,
        lambda: read_pictures("set", ""),
        lambda: load_list("a"),
        lambda: make_dataset(
            base.vae, base.model, images=[picture], captions=["a"], masks=(), concept="<a>", class_word="",
            resolution=64, batch_size=1, rules=CaptionRules(),
        ),
    ):  # fmt: skip
        comfy.model_management.interrupt_current_processing(True)
        with pytest.raises(comfy.model_management.InterruptProcessingException):
            action()
        comfy.model_management.interrupt_current_processing(False)


@pytest.mark.parametrize("kind", ["picture", "caption"])
def test_a_pipe_among_the_pictures_is_refused_and_not_waited_for(folders: Path, kind: str) -> None:
    (folders / "input" / "set").mkdir()
    Image.new("RGB", (16, 16)).save(folders / "input" / "set" / "a.png")
    os.mkfifo(folders / "input" / "set" / ("b.png" if kind == "picture" else "a.txt"))
    with pytest.raises(ValueError, match="expected a readable file, got a folder, a pipe or a device"):
        read_pictures("set", "")


@pytest.mark.parametrize("spoil", ["deep", "cut", "other", "pipe", "none"])
def test_kept_grams_are_read_as_a_strangers_file(base: Base, small: BlockLoRA, spoil: str) -> None:
    store = GramStore.of(base.model)
    path = store.path(small, CollectJob())
    names = list(small.layers) if spoil != "other" else ["another"]
    size = next(iter(small.layers.values())).in_features
    grams = Grams.from_full({"x": torch.eye(size)}, dict.fromkeys(names, "x"), 4)
    store.keep(path, grams)
    data = path.read_bytes()
    if spoil == "deep":
        tensors, _ = tensors_in(path, data)
        path.write_bytes(serialise(tensors, {"blocklora.grams_index": "[" * 100_000}))
    elif spoil == "cut":
        path.write_bytes(data[:-9])
    elif spoil == "pipe":
        path.unlink()
        os.mkfifo(path)
    found = store.find(path, small)
    assert (found is None) == (spoil != "none")


def test_headers_are_read_once(small: BlockLoRA, monkeypatch: pytest.MonkeyPatch) -> None:
    from blocklora.blocklora_core.files.catalogue import index, summary

    path = save(disk.loras_folder() / "a.safetensors", small)
    ledger.slot_tables()
    monkeypatch.setattr(summary, "read_header", lambda _: pytest.fail("read again"))
    ledger.slot_tables()
    monkeypatch.undo()
    save(path, small.renamed("<bobby>"), overwrite=True)
    entry = index.block_of(path)
    assert entry is not None and entry.concept == "<bobby>"


def test_a_signal_waits_for_the_state_and_then_does_what_it_did() -> None:
    heard: list[int] = []
    before = signal.signal(signal.SIGTERM, lambda number, _: heard.append(number))
    try:
        with stopping() as stop:
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(0.1)
            assert stop.signal == signal.SIGTERM and not heard
            stop.kept.set()
            stop.obey()
            time.sleep(0.1)
        assert heard == [signal.SIGTERM]
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(0.1)
        assert len(heard) == 2
    finally:
        signal.signal(signal.SIGTERM, before)


def test_a_layer_pattern_ends() -> None:
    started = time.perf_counter()
    choice = layer_choice("attention", "([a-z_.0-9]+)+!")
    assert not choice.wanted("diffusion_model.input_blocks.1.1.transformer_blocks.0.attn1.to_q.weight" * 4)
    assert time.perf_counter() - started < 5


def vectors(tokens: dict[str, Any]) -> int:
    return sum(isinstance(token[0], torch.Tensor) for section in tokens["l"] for token in section)


@pytest.mark.parametrize(
    ("name", "prompt", "uses"),
    [("art", "a party at the cartoon museum", 0), ("art", "art, (art:1.2) and ART.", 3), ("ada", "ada-2 and ada", 1),
     ("<hero>", "a <Hero> and a <HERO>", 2), ("<a>", "b<a>c", 1)],
)  # fmt: skip
def test_names_are_words_in_upper_or_lower_case(base: Base, name: str, prompt: str, uses: int) -> None:
    known = with_concepts(base.clip, {name: {"clip_l": torch.randn(2, 768)}})
    assert vectors(known.tokenize(prompt)) == 2 * uses
