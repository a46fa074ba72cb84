"""A stranger's files and workflows in ComfyUI: what reaches the page, what is written, who gets which slot."""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch
from blocklora.blocklora_core.concept.concept import BlockLoRA, Concept
from blocklora.blocklora_core.files.io import load, save
from blocklora.blocklora_core.host import claims, disk, ledger
from blocklora.blocklora_core.host.page import MOST_LETTERS, tell
from blocklora.blocklora_core.host.text.tokens import with_concepts
from blocklora.blocklora_core.host.train.layers import layer_choice
from blocklora.blocklora_core.host.train.stopping import stopping

from tests.host.tiny import CONTIGUOUS, Base, adaptable, make_lora

BASE = "sd15-26M"


@pytest.fixture
def small(base: Base, folders: Path, monkeypatch: pytest.MonkeyPatch) -> BlockLoRA:
    assert folders.is_dir()
    monkeypatch.setattr(ledger, "_given", {})
    return make_lora(base, "<ada>", 0, stems=list(adaptable(base))[:1])


@pytest.mark.parametrize("text", ["<img src=x onerror=alert(1)>", "<hero>, 1 of 1", "a\"b'c&d", "x" * 10_000])
def test_progress_is_text_on_the_page(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    said: list[str] = []
    server = ModuleType("server")
    instance = SimpleNamespace(send_progress_text=lambda line, _node: said.append(line))
    server.PromptServer = SimpleNamespace(instance=instance)  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "server", server)
    tell("3", text)
    (line,) = said
    assert not set("<>\"'") & set(line) and len(line) < 6 * MOST_LETTERS


@pytest.mark.parametrize("prefix", ["../", "a/../../", "/tmp/", "a\0b/", "x" * 5000])
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


@pytest.mark.parametrize("name", ["<con>", "<Nul>", "<..>", "<.a>", "<com1>"])
def test_file_names_are_names_everywhere(name: str) -> None:
    made = disk.safe_name(Concept(name))
    assert not made.startswith(".") and made.lower() not in ("con", "nul", "com1", "")


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
    for number, text in enumerate(("", "[", "{}", '{"base": 1, "scheme": {}, "slot": 1, "concept": []}')):
        (folder / f"{number}.claim").write_text(text)
    assert list(claims.claims()) == []


def test_headers_are_read_once(small: BlockLoRA, monkeypatch: pytest.MonkeyPatch) -> None:
    from blocklora.blocklora_core.files.catalogue import summary

    path = save(disk.loras_folder() / "a.safetensors", small)
    ledger.slot_tables()
    monkeypatch.setattr(summary, "read_header", lambda _: pytest.fail("read again"))
    ledger.slot_tables()
    monkeypatch.undo()
    save(path, small.renamed("<bobby>"), overwrite=True)
    entry = summary.block_of(path)
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
