"""A cast: read, dealt its slots, planned, and what is remembered of it."""

from __future__ import annotations

import json
import random
import unicodedata
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from blocklora_core.cast import table
from blocklora_core.cast.inputs import base_mark, inputs_of, is_current, stamp_of
from blocklora_core.cast.journal import DEALT, FAILED, FINISHED, Entry, Journal
from blocklora_core.cast.member import Cast, CastError
from blocklora_core.cast.planning import AGAIN, BROKEN_OFF, CHANGED, TO_TRAIN, Known, plan
from blocklora_core.cast.planning import FINISHED as DONE
from blocklora_core.cast.reading import read_cast
from blocklora_core.cast.settings import KEYS
from blocklora_core.cast.slots import deal
from blocklora_core.concept.rows import Scheme
from blocklora_core.training import PRESETS, TrainConfig
from blocklora_core.training.data.folder import listing
from tests.conftest import ROOT


def put(root: Path, name: str, text: str | None = None, colour: str = "red") -> Path:
    folder = root / name
    folder.mkdir(parents=True)
    Image.new("RGB", (8, 8), colour).save(folder / "a.png")
    (folder / "a.txt").write_text("a person", encoding="utf-8")
    if text is not None:
        (folder / "concept.toml").write_text(text, encoding="utf-8", errors="surrogateescape")
    return folder


@pytest.fixture
def three(tmp_path: Path) -> Path:
    root = tmp_path / "studio"
    put(root, "ada", 'class_word = "woman"\nsteps = 7\nwords = "portrait"')
    put(root, "10_bob man")
    put(root, "cy", 'name = "<cyrus>"')
    return root


def members(cast: Cast) -> dict[str, Any]:
    return {member.key: member for member in cast.members}


def test_a_folder_of_folders_is_a_cast(three: Path) -> None:
    (three / ".hidden").mkdir()
    cast = read_cast(three)
    found = members(cast)
    assert (cast.name, list(found)) == ("studio", ["10_bob man", "ada", "cy"])
    assert [(m.concept.name, m.concept.class_word, m.words, m.config.steps) for m in cast.members] == [
        ("<bob>", "man", "", 300),
        ("<ada>", "woman", "portrait", 7),
        ("<cyrus>", "", "", 300),
    ]
    assert found["cy"].config == TrainConfig()
    # What a cast puts beside the pictures is nothing that was skipped.
    assert [listing(member.folder).skipped for member in cast.members] == [()] * 3


@pytest.mark.parametrize(
    ("folder", "name", "class_word"),
    [("Zoe\u0308 M\u00fcller woman", "<Zo\u00eb>", "M\u00fcller woman"), (" lead man ", "<lead>", "man"),
     ("\u674e \u96f7", "<\u674e>", "\u96f7"), ("<zed>", "<zed>", "")],
)  # fmt: skip
def test_folders_are_called_as_other_systems_call_them(tmp_path: Path, folder: str, name: str, class_word: str) -> None:
    put(tmp_path / "c", folder)
    (tmp_path / "c" / "cast.toml").write_text(
        f"[concepts.{json.dumps(unicodedata.normalize('NFC', folder))}]\nsteps = 9", encoding="utf-8"
    )
    (member,) = read_cast(tmp_path / "c").members
    assert (member.concept.name, member.concept.class_word, member.config.steps) == (name, class_word, 9)
    assert [picture.path.name for picture in listing(member.folder).pictures] == ["a.png"]


def test_what_is_no_cast_is_told_with_its_own_name(tmp_path: Path) -> None:
    with pytest.raises(CastError, match="nothing there"):
        read_cast(tmp_path / "studio")
    (tmp_path / "studio").mkdir()
    with pytest.raises(CastError, match="Cast studio: expected folders"):
        read_cast(tmp_path / "studio")
    put(tmp_path / "studio", "jean,luc")
    with pytest.raises(CastError, match=r"jean,luc.*give it a `name`"):
        read_cast(tmp_path / "studio")


def test_what_is_nearer_to_the_concept_goes_before(three: Path) -> None:
    (three / "cast.toml").write_text(
        '[train]\nsteps = 50\nrank = 8\nresolution = 96\npreset = "quick"\nerasure = 0.3\ncaption_shuffle = true\n'
        'slots = 32\n[concepts.ada]\nrank = 2\n[concepts.cy]\nadapter = "plain LoRA"',
        encoding="utf-8",
    )
    found = members(read_cast(three))
    ada, bob, cy = (found[key] for key in ("ada", "10_bob man", "cy"))
    assert (ada.config.steps, ada.config.adapter.rank) == (7, 2)
    # As in Train Settings, what is set goes before the preset.
    assert (bob.config.steps, bob.config.adapter.rank, bob.run.resolution) == (50, 8, 96)
    assert bob.config.grams.steps == PRESETS["quick"].fields["gram_steps"]
    assert (bob.config.erasure.probability, bob.config.captions.shuffle) == (0.3, True)
    assert (bob.config.adapter.scheme, cy.config.adapter.scheme) == (Scheme(slots=32), None)


def test_a_toml_file_lists_its_concepts(three: Path) -> None:
    file = three / "crew.toml"
    file.write_text(
        'together = [["x", "y"]]\n[concepts.x]\nfolder = "ada"\nname = "<x>"\n[concepts.y]\nfolder = "cy"', "utf-8"
    )
    cast = read_cast(file)
    assert (cast.name, cast.groups) == ("crew", (("x", "y"),))
    assert [(m.key, m.concept.name, m.folder) for m in cast.members] == [
        ("x", "<x>", three / "ada"),
        ("y", "<cyrus>", three / "cy"),
    ]


WRONG = [
    ("stps = 3", "stps", "perhaps steps"),
    ("zzz = 3", "zzz", "one of"),
    ("steps = 'many'", "steps", "a whole number"),
    ("steps = true", "steps", "a whole number"),
    ("steps = 0", "steps", "at least 1"),
    ("learning_rate = nan", "learning_rate", "a number"),
    ("adapter = 'dora'", "adapter", "row block"),
    ("niche_captions = 'x'", "niche_captions", "a list"),
    ("scheduler = 'never'", "scheduler", "linear"),
    ("slots = 999", "slots", "256"),
    ("slot = 16", "slot", "a slot"),
    ("name = 'a b'", "ada", "Concept name"),
    ("words = '\udcff'", "concept.toml", "Save it as UTF-8"),
    ("steps = = 3", "concept.toml", "TOML"),
    ("caption_dropout = 2.0", "caption_dropout", "0 to 1"),
]


@pytest.mark.parametrize(("text", "key", "expected"), WRONG)
def test_errors_name_the_file_and_the_key(tmp_path: Path, text: str, key: str, expected: str) -> None:
    folder = put(tmp_path / "c", "ada", text)
    with pytest.raises(CastError) as told:
        read_cast(tmp_path / "c")
    assert str(folder / "concept.toml") in str(told.value)
    assert key in str(told.value)
    assert expected in str(told.value)


def test_every_input_of_train_is_a_key_by_its_name() -> None:
    """But what a graph's links bring, and what a cast says in words of its own or decides itself."""
    inputs = json.loads((ROOT / "locales" / "de" / "nodeDefs.json").read_text(encoding="utf-8"))
    links = {"model", "clip", "vae", "images", "captions", "masks", "settings"}
    said = {"concept", "class_word", "slot", "resume", "train_again"}
    names = {*inputs["BlockLoRATrain"]["inputs"], *inputs["BlockLoRATrainSettings"]["inputs"]}
    assert names - links - said <= KEYS


def test_how_strong_niche_regularisation_is(tmp_path: Path) -> None:
    put(tmp_path / "c", "ada", "niche = 0.5")
    (ada,) = read_cast(tmp_path / "c").members
    assert ada.config.niche.weight == 0.5


@pytest.mark.parametrize("name", ["../ada", "/etc", "..\\\\ada", "", "x/../../ada", "C:/x"])
def test_no_file_leads_out_of_its_folder(tmp_path: Path, name: str) -> None:
    put(tmp_path, "ada")
    (tmp_path / "in").mkdir()
    file = tmp_path / "in" / "crew.toml"
    file.write_text(f'[concepts.ada]\nfolder = "{name}"', encoding="utf-8")
    with pytest.raises(CastError, match="a folder below"):
        read_cast(file)


def test_a_cast_needs_names_of_its_own_and_known_groups(three: Path) -> None:
    (three / "cast.toml").write_text('together = [["ada", "dan"]]', encoding="utf-8")
    with pytest.raises(CastError, match=r"together.*dan"):
        read_cast(three)
    (three / "cast.toml").write_text('[concepts.cy]\nname = "<ADA>"', encoding="utf-8")
    with pytest.raises(CastError, match="ada"):
        read_cast(three)


@pytest.mark.parametrize("seed", range(20))
def test_nobody_shares_a_slot_with_someone_they_meet(seed: int) -> None:
    draw = random.Random(seed)
    keys = [f"c{number}" for number in range(200)]
    groups = [draw.sample(keys, draw.randint(1, 6)) for _ in range(120)]
    pinned, taken = {groups[0][0]: 3}, {0, 1}
    dealt = deal(keys, groups, 32, pinned, taken)
    assert dealt.keys() == set(keys)
    assert all(len({dealt[key] for key in group}) == len(group) for group in groups)
    assert dealt[groups[0][0]] == 3
    assert not {slot for key, slot in dealt.items() if key not in pinned} & taken
    most = max(sum(len(group) - 1 for group in groups if key in group) for key in keys)
    assert max(dealt.values()) <= most + len(taken) + 1


def test_slots_are_used_again_by_those_who_never_meet() -> None:
    groups = [[f"{row}{at}" for at in range(4)] for row in "abcdefgh"]
    dealt = deal([key for group in groups for key in group], groups, 4, {})
    assert set(dealt.values()) == {0, 1, 2, 3}


def test_too_few_slots_are_told_with_the_remedy() -> None:
    keys = ["a", "b", "c"]
    with pytest.raises(CastError, match=r"2 slots, 3 concepts.*together"):
        deal(keys, [keys], 2, {})
    with pytest.raises(CastError, match="a and b, which meet"):
        deal(keys, [keys], 4, {"a": 1, "b": 1})


def test_the_journal_keeps_the_last_word_and_passes_over_what_is_torn(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "new")
    assert journal.entries() == {}
    assert not journal.folder.exists()
    done = Entry("<ada>", FINISHED, 0, "i", "s", "ada.safetensors", 9, 1.5, 7)
    for entry in (Entry("<ada>", DEALT, 0), done, Entry("<bob>", FAILED, None, error="no\npictures")):
        journal.add(entry)
    assert journal.entries() == {"<ada>": done, "<bob>": Entry("<bob>", FAILED, None, error="no\npictures")}
    with journal.path.open("ab") as file:
        file.write(b'{"concept": "<ada>", "event": "dea')
    assert journal.entries()["<ada>"] == done
    journal.add(Entry("<cy>", DEALT, 2))
    assert journal.entries()["<cy>"].slot == 2


@pytest.mark.parametrize(
    "line", ['{"concept": 3, "event": "dealt"}', "[]", '{"concept": "<a>"}', "[" * 9000,
             '{"concept": "<a>", "event": "finished", "file": "../../x"}',
             '{"concept": "<a>", "event": "dealt", "slot": true}'],
)  # fmt: skip
def test_a_strange_line_of_the_journal_is_none(tmp_path: Path, line: str) -> None:
    journal = Journal(tmp_path)
    journal.path.write_text(f"{line}\n", encoding="utf-8")
    journal.add(Entry("<b>", DEALT, 1))
    assert journal.entries() == {"<b>": Entry("<b>", DEALT, 1)}


def test_inputs_change_with_whatever_decides_what_is_learnt(three: Path) -> None:
    ada = members(read_cast(three))["ada"]
    before, stamp = inputs_of(ada, "base", 1), stamp_of(ada, "base", 1)
    alike = [
        replace(ada, config=ada.config.changed(preview_every=9, save_every=4)),
        replace(ada, run=replace(ada.run, checkpointing=True)),
    ]
    assert {inputs_of(one, "base", 1) for one in alike} == {before}
    others = [
        replace(ada, config=ada.config.changed(rank=9)),
        replace(ada, words="x"),
        replace(ada, run=replace(ada.run, resolution=64)),
    ]
    changed = {inputs_of(one, "base", 1) for one in others} | {inputs_of(ada, "other", 1), inputs_of(ada, "base", 2)}
    assert len(changed) == 5
    assert before not in changed
    (ada.folder / "a.txt").write_text("another", encoding="utf-8")
    assert inputs_of(ada, "base", 1) != before
    assert stamp_of(ada, "base", 1) != stamp


def test_pictures_that_were_only_touched_are_the_same(three: Path) -> None:
    ada = members(read_cast(three))["ada"]
    entry = Entry("<ada>", FINISHED, 1, inputs_of(ada, "base", 1), stamp_of(ada, "base", 1))
    data = (ada.folder / "a.png").read_bytes()
    (ada.folder / "a.png").unlink()
    (ada.folder / "a.png").write_bytes(data)
    assert is_current(entry, ada, "base", 1)
    assert not is_current(entry, ada, "base", 2)
    (ada.folder / "a.png").unlink()
    assert not is_current(entry, ada, "base", 1)


def test_bases_are_told_apart_by_blocks_from_all_over(tmp_path: Path) -> None:
    file = tmp_path / "base"
    file.write_bytes(bytes(10**6))
    before = base_mark(file)
    with file.open("r+b") as opened:
        opened.seek(-5, 2)
        opened.write(b"x")
    assert base_mark(file) == before  # not one of its blocks: what trainings sample is as sparse
    with file.open("r+b") as opened:
        opened.write(b"x")
    assert base_mark(file) != before


def test_a_plan_keeps_slots_and_tells_what_is_to_do(three: Path) -> None:
    put(three, "dan")
    put(three, "eve")
    cast = read_cast(three)
    files = three.parent / "files"
    files.mkdir()
    (files / "ada.safetensors").write_bytes(b"123")
    found = members(cast)
    ada = Entry("<ada>", FINISHED, 4, inputs_of(found["ada"], "b", 4), "", "ada.safetensors", 3, 14.0, 2**30)
    entries = {
        "<ada>": ada,
        "<bob>": Entry("<bob>", DEALT, 2),
        "<cyrus>": Entry("<cyrus>", FAILED, 0, error="[red]no[/] \x1b[2J"),
        "<dan>": replace(ada, concept="<dan>", slot=6, inputs="old"),
    }
    made = plan(cast, Known("b", files, entries, {1: {"<stranger>"}, 9: {"<eve>"}}))
    assert {row.member.concept.name: (row.slot, row.state) for row in made.rows} == {
        "<bob>": (2, BROKEN_OFF),
        "<ada>": (4, DONE),
        "<cyrus>": (0, AGAIN),
        "<dan>": (6, CHANGED),
        "<eve>": (9, TO_TRAIN),
    }
    assert (made.seconds_a_step, made.bytes_a_concept, made.memory) == (28 / 307, 3, 2**30)
    assert plan(cast, Known("b", three, {"<ada>": ada})).states == {TO_TRAIN: 5}
    assert "about 109 s" in table.summary(made)


def test_the_table_is_lines_without_rich_and_the_same_words_with_it(
    three: Path, capsys: pytest.CaptureFixture[str], without_rich: Callable[[], None]
) -> None:
    entries = {"<ada>": Entry("<ada>", FAILED, 0, error="[red]no[/] \x1b[2J")}
    made = plan(read_cast(three), Known("b", three, entries))
    table.show(made)
    pytest.importorskip("rich")
    rich = capsys.readouterr().out
    without_rich()
    table.show(made)
    lines = capsys.readouterr().out
    for told in (rich, lines):
        assert "<ada>" in told
        assert "[red]no[/]" in told
        assert "\x1b[2J" not in told
        assert "3 concepts: 1 failed before, 2 to train" in told
    assert lines.splitlines()[0].split() == list(table.COLUMNS)


@pytest.fixture
def without_rich(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    def hide() -> None:
        for name in ("rich", "rich.console", "rich.table", "rich.text"):
            monkeypatch.setitem(__import__("sys").modules, name, None)

    return hide
