"""Every malformed file is refused by load with a message for people: the file, what was expected, what to do."""

from __future__ import annotations

from pathlib import Path

import pytest

from blocklora_core.files.io import FileError, load, save
from blocklora_core.files.slots import tables
from tests.core.samples import Recipe, inputs, with_grams
from tests.malformed_files import CASES, HARM, Case

pytestmark = pytest.mark.filterwarnings("ignore:Validating sparse tensor invariants")  # torch's, before we see it


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    lora = Recipe().make("<hero>", 1)
    path = save(tmp_path_factory.mktemp("sound") / "good.safetensors", with_grams(lora, inputs(lora, 1), k=4))
    assert load(path).grams is not None
    return path


def test_there_are_many_and_each_has_a_name() -> None:
    names = [(case.name, case.suffix) for case in CASES]
    assert len(set(names)) == len(names) >= 30


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.name}{case.suffix}")
def test_a_malformed_file_is_refused_with_the_reason(
    sound: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, case: Case
) -> None:
    monkeypatch.chdir(tmp_path)
    path = case.write(sound, tmp_path)
    with pytest.raises(FileError, match=case.message) as caught:
        lora = load(path)
        assert case.late and lora.grams
        list(lora.grams.inputs.values())
    text = str(caught.value)
    assert text.startswith(f"{path}: ") and "expected" in text.lower() and len(text) < 1200
    assert not (tmp_path / HARM).exists()


def test_a_folder_of_malformed_files_does_not_stop_the_ledger(sound: Path, tmp_path: Path) -> None:
    for number, case in enumerate(CASES):
        case.write(sound, tmp_path).rename(tmp_path / f"{number}{case.suffix}")
    (tmp_path / "good.safetensors").write_bytes(sound.read_bytes())
    (tmp_path / "folder.safetensors").mkdir()
    (tmp_path / "nowhere.safetensors").symlink_to(tmp_path / "gone")
    assert any(tmp_path / "good.safetensors" in files for table in tables(tmp_path) for files in table.held.values())
