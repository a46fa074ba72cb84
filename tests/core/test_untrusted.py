"""What a stranger's bytes, JSON, patterns, folders and names may cost, and who may be written over."""

from __future__ import annotations

import json
import os
import re
import stat
import struct
import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest
import safetensors.torch
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors import SafetensorError

from blocklora_core.cancel import check, listening, patiently
from blocklora_core.concept.concept import BlockLoRA, Concept
from blocklora_core.concept.layer import Layer
from blocklora_core.files import FileError, load, save
from blocklora_core.files.catalogue import summary
from blocklora_core.files.record import read_record, write_record
from blocklora_core.files.shown import called_by
from blocklora_core.files.slots import tables, unreadable_files
from blocklora_core.files.untrusted import header
from blocklora_core.files.untrusted.folders import files_below
from blocklora_core.files.untrusted.header import MOST_TENSORS, Stored, opened, read_header
from blocklora_core.files.untrusted.json_text import MOST_DEPTH, finite, parse_json
from blocklora_core.files.untrusted.patterns import Budget, Pattern
from blocklora_core.files.untrusted.text import MOST_LETTERS, legible
from blocklora_core.files.writing import TEMPORARY, sweep, write_atomic, write_new
from blocklora_core.merge import merge
from blocklora_core.training.data.photos import read_photo
from tests.core.samples import Recipe, inputs, with_grams

PARTS = ("a", "b", ".", "[ab]", "[^a]", r"\w", r"\d", "(a|b)", "(ab)?", "a*", "b+?", "a{2}", "^", "$", r"\b", "(?=a)",
         "(?!b)", "(?<=a)", "(?<!ab)", "(?:a?){3}", "(b*)*", "(a|)")  # fmt: skip


@given(st.lists(st.sampled_from(PARTS), min_size=1, max_size=5).map("".join), st.text("ab1_ .", max_size=7))
def test_patterns_match_as_pythons_own_do(pattern: str, text: str) -> None:
    assert Pattern(pattern).search(text) == bool(re.search(pattern, text))
    assert Pattern(pattern).ends_from(text, [0]) == bool(re.fullmatch(f"(?:{pattern})", text))


@pytest.mark.parametrize(
    "pattern", ["([a-z_.0-9]+)+!", "(a|a)*b", "(.*)*x", "((a*)*)*!", "(?=(.*)*y)", "(a{1,99}){1,99}!"]
)
def test_no_pattern_takes_exponential_time(pattern: str) -> None:
    started = time.perf_counter()
    try:
        Pattern(pattern).search("a" * 200)
    except ValueError as error:
        assert "steps" in str(error)
    assert time.perf_counter() - started < 10


@pytest.mark.parametrize("pattern", [r"(a)\1", "(", "a" * 2000, "(" * 500])
def test_patterns_that_are_none_are_refused(pattern: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        Pattern(pattern)


def test_a_budget_is_for_all_patterns_together() -> None:
    budget = Budget(100)
    with pytest.raises(ValueError, match="too many steps"):
        for _ in range(100):
            Pattern("a*b*", budget).search("aab")


@pytest.mark.parametrize("text", ["[" * 100_000, "[" * (MOST_DEPTH + 2) + "]" * (MOST_DEPTH + 2), '{"a":' * 5000])
def test_deep_json_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        parse_json(text)


@pytest.mark.parametrize("value", [10**400, -(10**400), float("nan"), float("inf"), True, "1", None, []])
def test_numbers_are_finite(value: object) -> None:
    with pytest.raises(ValueError, match="finite number"):
        finite(value)


def raw(path: Path, header: object, body: bytes = b"") -> Path:
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + body)
    return path


def empty(shape: list[int]) -> dict[str, object]:
    return {"dtype": "F32", "shape": shape, "data_offsets": [0, 0]}


def test_a_million_names_are_refused_at_once(tmp_path: Path) -> None:
    path = raw(tmp_path / "a.safetensors", {f"{number}": empty([0]) for number in range(MOST_TENSORS + 1)})
    started = time.perf_counter()
    with pytest.raises(FileError, match="at most"):
        load(path)
    assert time.perf_counter() - started < 2


@pytest.mark.parametrize(
    "entry",
    [{"dtype": "F32", "shape": [2], "data_offsets": [0, 4]}, {"dtype": "F32", "shape": [-1], "data_offsets": [0, 4]},
     {"dtype": ["F32"], "shape": [1], "data_offsets": [0, 4]},
     {"dtype": "F32", "shape": [2**60], "data_offsets": [0, 4]},
     {"dtype": "F32", "shape": [1], "data_offsets": [4, 8]}],
)  # fmt: skip
def test_sizes_are_checked_before_anything_is_made(tmp_path: Path, entry: dict[str, object]) -> None:
    path = raw(tmp_path / "a.safetensors", {"x": entry}, bytes(4))
    with pytest.raises(FileError, match=r"safetensors|expected \d+ bytes"), opened(path) as file:
        file.tensors()


def plain_file(path: Path, value: float) -> Path:
    safetensors.torch.save_file(
        {"x.lora_up.weight": torch.full((4, 1), value), "x.lora_down.weight": torch.ones(1, 3)}, path
    )
    return path


def test_a_file_that_is_replaced_while_it_is_open_is_read_as_it_was(tmp_path: Path) -> None:
    path, other = (plain_file(tmp_path / name, value) for name, value in (("a.safetensors", 1.0), ("b", 2.0)))
    with opened(path) as file:
        other.replace(path)
        assert bool((file.tensors()["x.lora_up.weight"] == 1).all())


@pytest.mark.parametrize("size", [10, 200])
def test_a_file_that_changes_while_it_is_open_is_refused(tmp_path: Path, size: int) -> None:
    path = plain_file(tmp_path / "a.safetensors", 1.0)
    with pytest.raises(FileError, match="changed while it was read"), opened(path) as file:
        path.write_bytes(bytes(size))
        file.tensors()


HIDDEN = ("\x1b[2J", "\u202egnp.exe", "a\nb", "\u2066", "x" * 20_000)


@pytest.mark.parametrize("name", HIDDEN)
def test_names_of_tensors_show_and_are_short(tmp_path: Path, name: str) -> None:
    path = raw(tmp_path / "a.safetensors", {name: empty([0])})
    torch.save({name: torch.ones(1)}, tmp_path / "a.pt")
    for file in (path, tmp_path / "a.pt"):
        with pytest.raises(FileError, match="letters that show") as caught:
            load(file)
        assert len(str(caught.value)) < 1200 and str(caught.value).isprintable()


@pytest.mark.parametrize("name", HIDDEN)
def test_a_base_is_a_short_name_that_shows(name: str) -> None:
    entries = write_record(Recipe().make("<ada>"), None)
    record = {**json.loads(entries["blocklora"]), "base": name}
    with pytest.raises(ValueError, match="Expected a base of at most"):
        read_record({"blocklora": json.dumps(record)})


@pytest.mark.parametrize("text", ["a \x1b[31mhat\u202e", "hat " * 10**6, "x" * 10**7])
@pytest.mark.parametrize("field", ["modelspec.trigger_phrase", "ss_tag_frequency"])
def test_what_calls_a_lora_is_a_few_words(field: str, text: str) -> None:
    value = json.dumps({"1_x": {text: 3}}) if field.startswith("ss") else text
    lora = replace(Recipe().make("<ada>"), scheme=None, slot=None, embeddings={}, metadata={field: value})
    (said,) = called_by(lora).values()
    assert 0 < len(said) <= MOST_LETTERS and said.isprintable()


def test_messages_are_legible() -> None:
    assert str(FileError("a\x1b[31m\u202eb")) == "a\\x1b[31m\\u202eb"
    assert legible("\ud800 \x07") == "\\ud800 \\x07"
    assert legible("zwj \u200d, two\nlines, ä, 語") == "zwj \u200d, two\nlines, ä, 語"


def special(path: Path, kind: str) -> None:
    if kind == "pipe":
        os.mkfifo(path)
    else:
        path.symlink_to("/dev/zero" if kind == "endless" else path.name)


@pytest.mark.parametrize("kind", ["pipe", "endless", "itself"])
def test_pictures_are_ordinary_files(tmp_path: Path, kind: str) -> None:
    special(tmp_path / "a.png", kind)
    with pytest.raises(ValueError, match=r"a\.png: expected a readable file"):
        read_photo(tmp_path / "a.png")


def test_a_file_that_nobody_thought_of_stops_no_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save(tmp_path / "a.safetensors", Recipe().make("<ada>", 3))
    save(tmp_path / "b.safetensors", Recipe().make("<bob>", 4))
    known = summary.read_header

    def odd(path: Path) -> object:
        if path.name == "b.safetensors":
            raise UnboundLocalError("odd")
        return known(path)

    monkeypatch.setattr(summary, "read_header", odd)
    (table,) = tables(tmp_path)
    assert list(table.held) == [3]
    assert unreadable_files(tmp_path) == {tmp_path / "b.safetensors": "odd"}


def test_a_pipe_is_refused_and_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a.safetensors")
    with pytest.raises(FileError, match="pipe"):
        load(tmp_path / "a.safetensors")


def test_what_was_read_stays_whatever_becomes_of_the_file(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    safetensors.torch.save_file({"x.lora_up.weight": torch.ones(4, 1), "x.lora_down.weight": torch.ones(1, 3)}, path)
    lora = load(path)
    with path.open("r+b") as file:
        file.seek(-4, os.SEEK_END)
        file.write(b"\xff\xff\xff\x7f")
    assert bool((lora.layers["x"].down == 1).all())


def hero(path: Path, seed: int = 1) -> BlockLoRA:
    """A concept with Grams, saved at `path`."""
    lora = Recipe().make("<hero>", 1, seed=seed)
    lora = with_grams(lora, inputs(lora, seed), k=4)
    save(path, lora, overwrite=True)
    return lora


def test_grams_stay_in_the_file_until_somebody_asks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.safetensors"
    lora = hero(path)
    read: list[Stored] = []
    real = Stored.read
    monkeypatch.setattr(Stored, "read", lambda stored: read.append(stored) or real(stored))
    loaded = load(path)
    assert loaded.grams and loaded.grams.covers(["nobody"]) is False and not merge((loaded,), "per_row").notes
    assert loaded.grams.covers(lora.grams.input_of if lora.grams else ["?"]) and not read
    for _ in range(2):
        for name in loaded.grams.input_of:
            assert lora.grams and torch.equal(loaded.grams.of(name).dense(), lora.grams.of(name).dense())
    assert len(read) == 1


def test_halves_of_letters_are_refused_where_the_library_does_not_see_them(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    hero(path)
    data = path.read_bytes()
    (length,) = struct.unpack_from("<Q", data)
    text = data[8 : 8 + length].replace(b"<hero>", rb"\ud800", 1)
    assert len(text) == length  # so that the Grams are where they were
    path.write_bytes(struct.pack("<Q", len(text)) + text + data[8 + length :])
    with pytest.raises(SafetensorError):
        safetensors.torch.load(path.read_bytes())
    with pytest.raises(FileError, match="expected a safetensors file"):
        load(path)


def test_grams_of_a_file_that_was_changed_since_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    hero(path)
    loaded = load(path)
    hero(path, seed=2)
    assert loaded.grams
    with pytest.raises(FileError, match=r"a\.safetensors: expected the file as it was.*Load it again"):
        loaded.grams.of(next(iter(loaded.grams.input_of)))


@pytest.mark.parametrize("kept", [True, False], ids=["at rest", "written a moment ago"])
def test_the_header_of_a_file_at_rest_is_read_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kept: bool) -> None:
    monkeypatch.setattr(header, "_YOUNG", 0 if kept else 60 * 10**9)
    path, parsed = tmp_path / "a.safetensors", []
    hero(path)
    real = header._parse
    monkeypatch.setattr(header, "_parse", lambda where, text: parsed.append(where) or real(where, text))
    for _ in range(3):
        found = read_header(path)
        found.clear()  # the caller's own
        assert load(path).concept.name == "<hero>"
    assert len(parsed) == (1 if kept else 6)
    data = path.read_bytes().replace(b"hero", b"zero")
    with path.open("r+b") as file:
        file.write(data)
    assert load(path).concept.name == "<zero>"


def test_loops_of_links_are_walked_once(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.txt").touch()
    for name in "xy":
        (tmp_path / "in" / name).symlink_to(tmp_path)
    assert [path.name for path in files_below(tmp_path, ".txt")] == ["a.txt"]


def test_folders_may_lie_deep_in_each_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.txt").touch()
    monkeypatch.chdir(tmp_path)
    for _ in range(1500):
        Path("d").mkdir()
        os.chdir("d")
    try:
        assert [path.name for path in files_below(tmp_path, ".txt")] == ["a.txt"]
    finally:
        while Path.cwd() != tmp_path:
            os.chdir("..")
            Path("d").rmdir()


@pytest.mark.parametrize("mask", [0o022, 0o002, 0o077])
def test_modes_follow_the_umask(tmp_path: Path, mask: int) -> None:
    before = os.umask(mask)
    try:
        write_atomic(tmp_path / "a", b"1")
        assert write_new(tmp_path / "b", b"1")
    finally:
        os.umask(before)
    assert {stat.S_IMODE((tmp_path / name).stat().st_mode) for name in "ab"} == {0o666 & ~mask}


def test_of_many_writers_of_one_new_file_one_wins_and_none_is_torn(tmp_path: Path) -> None:
    won: list[int] = []

    def write(number: int) -> None:
        if write_new(tmp_path / "a", bytes([number]) * 100_000):
            won.append(number)

    threads = [threading.Thread(target=write, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(won) == 1
    assert (tmp_path / "a").read_bytes() == bytes(won) * 100_000
    assert len(list(tmp_path.iterdir())) == 1


def test_leftovers_of_killed_writers_are_swept_and_no_others(tmp_path: Path) -> None:
    pid = os.fork()
    if not pid:
        os.fsync = lambda _: os._exit(0)  # type: ignore[assignment]
        write_atomic(tmp_path / "deep" / "a.safetensors", b"half")
    os.waitpid(pid, 0)
    (left,) = files_below(tmp_path, TEMPORARY)
    living = left.with_name(left.name.replace(f"-{pid}-", f"-{os.getpid()}-"))
    living.touch()
    (tmp_path / ".somebody-elses.tmp").touch()
    assert sweep([tmp_path]) == [left]
    assert living.exists() and len(list(tmp_path.iterdir())) == 2


def test_copies_of_one_concept_are_no_clash_and_bad_files_are_named(tmp_path: Path) -> None:
    for name in ("a", "b"):
        save(tmp_path / f"{name}.safetensors", Recipe().make("<ada>", 3))
    (tmp_path / "bad.safetensors").write_bytes(b"bad")
    (table,) = tables(tmp_path)
    assert not table.clashes
    assert [path.name for path in unreadable_files(tmp_path)] == ["bad.safetensors"]
    save(tmp_path / "c.safetensors", Recipe().make("<bob>", 3))
    (table,) = tables(tmp_path)
    assert list(table.clashes) == [3]


@pytest.mark.parametrize("name", ['<a"b>', "<a'b>", "<a/b>", "<a=b>", "<a&b>", "<" + "x" * 10_000 + ">", "<a\0>"])
def test_names_hold_no_markup_and_no_paths(name: str) -> None:
    with pytest.raises(ValueError, match="Concept name: expected"):
        Concept(name)
    with pytest.raises(ValueError, match="Class word: expected"):
        Concept("<a>", name.strip("<>").replace("'", "<"))


@pytest.mark.parametrize("factor", [1e30, float("1e308")])
def test_merges_that_overflow_name_the_concept(factor: float) -> None:
    lora = Recipe().make("<ada>")
    large = lora.with_layers({name: _times(layer, 1e20) for name, layer in lora.layers.items()})
    with pytest.raises(ValueError, match=r"<ada> .*: expected a change"):
        merge((large.with_strength(factor), Recipe().make("<bob>", 3)), "per_row")


def _times(layer: Layer, factor: float) -> Layer:
    return Layer(layer.up.float() * factor, layer.down, layer.rows, layer.out_features, layer.scale)


class CancelledError(Exception):
    """The user's."""


def cancelled() -> None:
    raise CancelledError


def test_cancels_are_heard_in_merges_and_in_one_long_call() -> None:
    with listening(cancelled), pytest.raises(CancelledError):
        merge([Recipe().make("<ada>")], "ties")
    started = time.perf_counter()
    asked: list[float] = []

    def after_a_second() -> None:
        asked.append(time.perf_counter())
        if asked[-1] - started > 1:
            raise CancelledError

    with listening(after_a_second), pytest.raises(CancelledError):
        patiently(lambda: time.sleep(30), 1e12)
    assert time.perf_counter() - started < 3
    check()


def test_an_error_of_a_long_call_comes_out() -> None:
    with listening(lambda: None), pytest.raises(ZeroDivisionError):
        patiently(lambda: 1 / 0, 1e12)
