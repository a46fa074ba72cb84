"""A cast trained on a real, tiny base: the files of Train, each once, whatever happens on the way."""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import comfy.model_management
import folder_paths
import numpy as np
import pytest
import torch
from blocklora.blocklora_core.cast.journal import DEALT, FAILED, FINISHED, Entry
from blocklora.blocklora_core.cast.reading import read_cast
from blocklora.blocklora_core.files.io import load, save
from blocklora.blocklora_core.files.writing import FullDiskError
from blocklora.blocklora_core.host.cast import command as commands
from blocklora.blocklora_core.host.cast import graph, results, worker
from blocklora.blocklora_core.host.cast import train as training
from blocklora.blocklora_core.host.cast.base import Loaded, Place, graph_base, make_plan
from blocklora.blocklora_core.host.cast.cluster import Cluster, Setup, connected
from blocklora.blocklora_core.host.cast.results import Wanted, collected, stack_of, to_file, to_sheet
from blocklora.blocklora_core.host.cast.train import job_of, train_cast
from blocklora.blocklora_core.host.cast.worker import InTurn
from blocklora.blocklora_core.host.disk import loras_folder, write, write_lora
from blocklora.blocklora_core.host.evaluate.generate import Sampling
from blocklora.blocklora_core.host.ledger import given_slots
from blocklora.blocklora_core.host.train.collect import CollectJob
from blocklora.blocklora_core.host.train.train import TrainResult, train_concept
from blocklora.blocklora_core.host.weights.export import Exported
from PIL import Image

from tests.conftest import ROOT, comfyui_folder
from tests.host.tiny import Base, write_base

pytestmark = pytest.mark.usefixtures("folders")

SETTINGS = """
[train]
steps = 2
batch_size = 2
niche_negatives = 2
gram_pictures = 1
gram_steps = 2
preview_every = 0
resolution = 64
precision = "fp32"
class_word = "person"
"""


def put(root: Path, name: str, seed: int) -> None:
    (root / name).mkdir(parents=True)
    for number in range(2):
        pixels = np.random.RandomState(seed + number).randint(0, 255, (64, 64, 3), np.uint8)
        Image.fromarray(pixels).save(root / name / f"{number}.png")


@pytest.fixture
def studio(tmp_path: Path) -> Path:
    root = tmp_path / "studio"
    for seed, name in enumerate(("ada", "bob", "cy")):
        put(root, name, 10 * seed)
    (root / "cast.toml").write_text(SETTINGS, encoding="utf-8")
    return root


@pytest.fixture
def loaded(base: Base) -> Loaded:
    return Loaded(base.model, base.clip, base.vae, "mark")


def run(root: Path, loaded: Loaded) -> tuple[training.Trained, list[Entry]]:
    told: list[Entry] = []
    return train_cast(read_cast(root), loaded.facts, InTurn(loaded), told.append), told


def files(root: Path, loaded: Loaded) -> dict[str, bytes]:
    folder = Place.of(read_cast(root), loaded.facts).folder
    return {path.name: path.read_bytes() for path in folder.glob("*.safetensors")}


@pytest.fixture
def broken(monkeypatch: pytest.MonkeyPatch) -> Callable[[str, BaseException], None]:
    """Makes the training of one concept fail before its first step."""

    def breaks(name: str, error: BaseException) -> None:
        def train(*given: object) -> TrainResult:
            if given[3].concept.name == name:  # type: ignore[attr-defined]
                raise error
            return train_concept(*given)  # type: ignore[arg-type]

        monkeypatch.setattr(worker, "train_concept", train)

    return breaks


def test_a_cast_is_what_train_makes_one_by_one(studio: Path, loaded: Loaded) -> None:
    before = sorted(loras_folder().rglob("*"))
    planned = make_plan(read_cast(studio), loaded.facts)
    assert [row.slot for row in planned.rows] == [0, 1, 2]
    assert sorted(loras_folder().rglob("*")) == before
    done, told = run(studio, loaded)
    assert ([entry.event for entry in told], done.failed) == ([FINISHED] * 3, {})
    ada = read_cast(studio).members[0]
    with torch.inference_mode():
        alone = train_concept(loaded.model, loaded.clip, loaded.vae, job_of(ada, 0))
    assert (
        files(studio, loaded)["ada.safetensors"]
        == write_lora(loras_folder() / "a.safetensors", alone.lora).read_bytes()
    )


def test_only_what_changed_is_trained_again(studio: Path, loaded: Loaded) -> None:
    run(studio, loaded)
    first = files(studio, loaded)
    assert run(studio, loaded)[1] == []
    (studio / "bob" / "0.txt").write_text("another caption", encoding="utf-8")
    (Place.of(read_cast(studio), loaded.facts).folder / "cy.safetensors").unlink()
    put(studio, "alf", 77)
    done, told = run(studio, loaded)
    assert [entry.concept for entry in told] == ["<alf>", "<bob>", "<cy>"]
    # Whoever joins takes nobody's slot.
    assert {row.member.key: row.slot for row in done.plan.rows} == {"ada": 0, "bob": 1, "cy": 2, "alf": 3}
    now = files(studio, loaded)
    assert [name for name in first if now[name] != first[name]] == ["bob.safetensors"]


def test_one_that_fails_stops_nobody_and_is_told(
    studio: Path, loaded: Loaded, broken: Callable[[str, BaseException], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    (studio / "ada" / "0.png").write_bytes(b"no picture")
    broken("<bob>", torch.OutOfMemoryError("no memory left"))
    done, told = run(studio, loaded)
    assert [entry.event for entry in told] == [FAILED, FAILED, FINISHED]
    assert "0.png" in done.failed["<ada>"]
    assert "no memory left" in done.failed["<bob>"]
    monkeypatch.setattr(worker, "train_concept", train_concept)
    put_again = studio / "ada" / "0.png"
    Image.new("RGB", (64, 64), "red").save(put_again)
    done, told = run(studio, loaded)
    assert [(entry.concept, entry.slot) for entry in told] == [("<ada>", 0), ("<bob>", 1)]
    assert done.plan.to_train == []


def test_a_cancelled_cast_goes_on(
    studio: Path, loaded: Loaded, broken: Callable[[str, BaseException], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    broken("<bob>", comfy.model_management.InterruptProcessingException())
    with pytest.raises(comfy.model_management.InterruptProcessingException):
        run(studio, loaded)
    assert sorted(files(studio, loaded)) == ["ada.safetensors"]
    # Nobody else is given what waits.
    waiting = {(row.slot, row.member.concept.name) for row in make_plan(read_cast(studio), loaded.facts).to_train}
    assert {name for _, name in waiting} == {"<bob>", "<cy>"}
    assert waiting <= {(slot, name) for _, _, slot, name in given_slots()}
    monkeypatch.setattr(worker, "train_concept", train_concept)
    assert [entry.concept for entry in run(studio, loaded)[1]] == ["<bob>", "<cy>"]


def test_who_never_meets_shares_a_slot_and_others_files_are_left_theirs(studio: Path, loaded: Loaded) -> None:
    run(studio, loaded)
    again = studio.with_name("second")
    for seed, name in enumerate(("dan", "eve", "flo")):
        put(again, name, 100 + seed)
    (again / "cast.toml").write_text(f'together = [["dan", "eve"], ["flo"]]\n{SETTINGS}', encoding="utf-8")
    rows = make_plan(read_cast(again), loaded.facts).rows
    assert {row.member.key: row.slot for row in rows} == {"dan": 3, "eve": 4, "flo": 3}


def test_a_finished_cast_is_merged_into_a_file_and_a_sheet(studio: Path, loaded: Loaded, tmp_path: Path) -> None:
    run(studio, loaded)
    cast = read_cast(studio)
    exported = to_file(cast, loaded, Wanted(), "blocklora/merged")
    assert exported.path.is_file()
    wanted = Wanted(["ada", "cy"], sampling=Sampling(steps=1, size=64))
    assert [lora.concept.name for lora in stack_of(cast, loaded.facts, wanted.keys)] == ["<ada>", "<cy>"]
    with Image.open(to_sheet(cast, loaded, wanted, "a photo of {}", tmp_path / "sheet.png")) as sheet:
        # Two panels side by side, drawn and not blank.
        pixels = np.asarray(sheet)
    assert len(np.unique(pixels[40:90, 16:80].reshape(-1, 3), axis=0)) > 9
    assert len(np.unique(pixels[40:90, 96:160].reshape(-1, 3), axis=0)) > 9
    with pytest.raises(ValueError, match="none for dan"):
        stack_of(cast, loaded.facts, ["dan"])


@pytest.fixture
def comfyui(tmp_path: Path) -> Path:
    """The host's code with folders of its own: it looks for these beside folder_paths.py."""
    root, real = tmp_path / "host", comfyui_folder()
    root.mkdir()
    for one in real.iterdir():
        if one.name not in {"folder_paths.py", "models", "input", "output", "user", "temp", "custom_nodes"}:
            (root / one.name).symlink_to(one)
    shutil.copy(real / "folder_paths.py", root)
    (root / "models" / "checkpoints").mkdir(parents=True)
    write_base(root / "models" / "checkpoints" / "tiny.safetensors")
    return root


def command(comfyui: Path, *given: str) -> subprocess.CompletedProcess[str]:
    line = [sys.executable, "-m", "blocklora_core", "cast", *given, "--base", "tiny.safetensors", "--cpu"]
    return subprocess.run(
        [*line, "--comfyui", str(comfyui)], cwd=ROOT, env={**os.environ, "COLUMNS": "100"}, capture_output=True,
        text=True, timeout=500, check=False,
    )  # fmt: skip


def test_the_command_plans_trains_tells_and_merges(studio: Path, comfyui: Path) -> None:
    shutil.rmtree(studio / "cy")
    (studio / "cy").mkdir()
    trained = command(comfyui, str(studio), "train")
    assert trained.returncode == 2, trained.stderr
    assert "<ada> finished" in trained.stdout
    assert "3 concepts: 1 failed before, 2 finished" in trained.stdout
    assert "<cy> failed: Picture folder 'cy'" in trained.stderr
    sheet = studio / "sheet.png"
    merged = command(comfyui, str(studio), "merge", "--sheet", str(sheet), "--steps", "1", "--size", "64")
    assert merged.returncode == 0, merged.stderr
    assert sheet.is_file()


def test_the_command_says_what_a_merged_file_lacks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "crew.safetensors"
    path.write_bytes(b"0" * 2_000_000)
    exported = Exported(
        path, 3, (4, 4), (4, 4), torch.float32, 0.0, {"<ada>": "embedding:crew/ada"}, ("<zed>",), ("ben",)
    )
    monkeypatch.setattr(results, "to_file", lambda *_: exported)
    asked = SimpleNamespace(only=[], method="auto", sheet=None, file="crew")
    session = SimpleNamespace(
        cast=None, options=asked, base=SimpleNamespace(facts=None), sampling=lambda _: Sampling(steps=1, size=64)
    )
    assert commands._merge(session) == 0  # type: ignore[arg-type]
    told = capsys.readouterr().out.splitlines()
    assert (
        told[0].endswith("crew.safetensors: 3 layers, 2.0 MB")
        and told[1] == "<ada>: write embedding:crew/ada in stock prompts"
    )
    assert "layer-wise tokens of <zed>" in told[2] and "learnt of ben" in told[3]


def test_the_command_says_what_is_wrong(studio: Path, tmp_path: Path) -> None:
    (studio / "cast.toml").write_text("[train]\nstps = 3", encoding="utf-8")
    told = command(comfyui_folder(), str(studio))
    assert (told.returncode, told.stdout) == (1, "")
    assert "cast.toml, key stps" in told.stderr
    (studio / "cast.toml").unlink()
    told = command(tmp_path, str(studio))
    assert told.returncode == 1
    assert "--comfyui" in told.stderr


def test_the_node_trains_a_folder_and_tells_of_everyone(
    studio: Path, loaded: Loaded, pack: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    (studio / "bob" / "0.png").write_bytes(b"no picture")
    told: list[dict[str, Any]] = []
    monkeypatch.setattr(graph, "announce", lambda event, data: told.append({"event": event, **data}))
    monkeypatch.setattr(graph, "TOLD_EVERY", 0.0)
    shutil.copytree(studio, Path(folder_paths.get_input_directory()) / "studio")
    node = next(node for node in pack.NODES if node.__name__ == "BlockLoRATrainCast")
    assert graph.cast_folders() == ["studio"]
    before = node.fingerprint_inputs(folder="studio")
    made = node.execute(loaded.model, loaded.clip, loaded.vae, "studio")
    stack, report = made.result
    assert [lora.concept.name for lora in stack] == ["<ada>", "<cy>"]
    assert report.splitlines()[1].startswith("<bob>: failed before")
    assert "0.png" in made.ui["blocklora_warnings"][0]
    # Everyone has a line from the start, and one that tells of steps while it is trained.
    assert {line.split(":")[0] for line in told[0]["text"].splitlines()} == {"<ada>", "<bob>", "<cy>"}
    assert any("<cy>: step 2 of 2" in one["text"] and "<ada>: finished" in one["text"] for one in told)
    # What failed is tried again, though no file has changed.
    assert node.fingerprint_inputs(folder="studio") != before
    assert node.validate_inputs(folder="studio") is True
    assert "below ComfyUI's input folder" in node.validate_inputs(folder="../x")
    put(Path(folder_paths.get_input_directory()) / "studio", "dan", 9)
    again = node.fingerprint_inputs(folder="studio")
    assert [lora.slot for lora in node.execute(loaded.model, loaded.clip, loaded.vae, "studio").result[0]] == [0, 2, 3]
    assert again != before


def test_two_at_once_do_not_train_one_cast(studio: Path, loaded: Loaded) -> None:
    cast = read_cast(studio)
    with Place.of(cast, loaded.facts).alone():
        with pytest.raises(ValueError, match="another process"):
            run(studio, loaded)
        with pytest.raises(ValueError, match="another process"):
            collected(cast, loaded.facts, InTurn(loaded), CollectJob(), lambda _: None)
        assert len(make_plan(cast, loaded.facts).to_train) == 3
    assert run(studio, loaded)[0].failed == {}


def test_a_full_disk_ends_the_cast_which_goes_on_after_room_is_made(
    studio: Path, loaded: Loaded, monkeypatch: pytest.MonkeyPatch
) -> None:
    written: list[Path] = []

    def full(*_given: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def keep(path: Path, *given: Any) -> Path:
        written.append(path)
        with monkeypatch.context() as patch:
            if path.stem == "bob":
                patch.setattr(os, "fsync", full)
            return write(path, *given)

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(FullDiskError, match=r"cast.jsonl: .* No space left"):
            run(studio, loaded)
    with monkeypatch.context() as patch:
        patch.setattr(training, "write", keep)
        with pytest.raises(FullDiskError, match=r"bob.safetensors: .* No space left"):
            run(studio, loaded)
    # Nobody is trained in vain, and nothing is half written.
    assert [path.stem for path in written] == ["ada", "bob"]
    assert sorted(files(studio, loaded)) == ["ada.safetensors"]
    assert [entry.concept for entry in run(studio, loaded)[1]] == ["<bob>", "<cy>"]


def test_two_casts_of_one_name_are_told_and_one_that_moved_is_not(studio: Path, loaded: Loaded, tmp_path: Path) -> None:
    run(studio, loaded)
    other = tmp_path / "elsewhere" / "studio"
    shutil.copytree(studio, other)
    with pytest.raises(ValueError, match="name of its own"):
        make_plan(read_cast(other), loaded.facts)
    shutil.rmtree(studio)
    assert make_plan(read_cast(other), loaded.facts).to_train == []


def test_bases_of_one_kind_have_folders_of_their_own(loaded: Loaded, studio: Path) -> None:
    other = graph_base(loaded.model, loaded.clip, loaded.vae)
    assert other.mark == graph_base(loaded.model, loaded.clip, loaded.vae).mark
    patched = loaded.model.clone()
    key = next(iter(loaded.model.model_state_dict()))
    patched.add_patches({key: (torch.ones_like(loaded.model.model_state_dict()[key]),)}, 0.5)
    assert graph_base(patched, loaded.clip, loaded.vae).mark != other.mark
    cast = read_cast(studio)
    assert Place.of(cast, other.facts).folder != Place.of(cast, loaded.facts).folder


def test_grams_that_are_lacking_are_collected_into_the_files(studio: Path, loaded: Loaded) -> None:
    run(studio, loaded)
    here, before = Place.of(read_cast(studio), loaded.facts), files(studio, loaded)
    # As a training leaves it that found no memory for its Grams.
    path = here.folder / "cy.safetensors"
    save(path, replace(load(path), grams=None), overwrite=True)
    entry = replace(here.entries["<cy>"], event=DEALT, bytes=path.stat().st_size, error="Without Grams")
    here.journal.add(entry)
    assert [row.member.key for row in make_plan(read_cast(studio), loaded.facts).to_train] == ["cy"]
    told: list[Entry] = []
    job = CollectJob(pictures=1, steps=1, size=64)
    assert collected(read_cast(studio), loaded.facts, InTurn(loaded), job, told.append) == {}
    assert [one.concept for one in told] == ["<cy>"]
    assert load(path).grams is not None
    assert make_plan(read_cast(studio), loaded.facts).to_train == []
    now = files(studio, loaded)
    assert {name for name in before if now[name] != before[name]} <= {"cy.safetensors"}


def test_a_cluster_without_ray_says_what_to_install(comfyui: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(ValueError, match="pip install"), connected(Cluster("auto"), Setup(comfyui, "tiny.safetensors")):
        pass


def test_two_of_ray_s_workers_make_the_same_files(studio: Path, comfyui: Path) -> None:
    pytest.importorskip(
        "ray", reason="Ray is an extra (pip install 'ray[default,client]'); the pool has a test of its own"
    )
    alone = command(comfyui, str(studio), "train")
    assert alone.returncode == 0, alone.stderr
    folder = comfyui / "models" / "loras"
    first = {path.name: path.read_bytes() for path in folder.rglob("*.safetensors")}
    shutil.rmtree(folder)
    shutil.rmtree(comfyui / "user")
    both = command(comfyui, str(studio), "train", "--cluster", "auto", "--workers", "2")
    assert both.returncode == 0, both.stderr
    assert {path.name: path.read_bytes() for path in folder.rglob("*.safetensors")} == first
