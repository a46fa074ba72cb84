"""The nodes that report: Inspect and Slots."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from blocklora.blocklora_core.concept.concept import Concept
from blocklora.blocklora_core.files.io import save
from blocklora.blocklora_core.host import ledger
from blocklora.blocklora_core.host.weights.names import model_stems

from tests.host.tiny import CONTIGUOUS, Base, adaptable, make_lora


@pytest.fixture(scope="module")
def node(pack: ModuleType) -> dict[str, Any]:
    return {kind.__name__: kind for kind in pack.NODES}


@pytest.fixture(autouse=True)
def a_new_session(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ledger, "_given", {})


@pytest.mark.usefixtures("folders")
def test_inspect_gives_words_a_table_and_a_picture(node: dict[str, Any], base: Base) -> None:
    stems = list(adaptable(base))[:3]
    stack = tuple(make_lora(base, name, slot, stems=stems) for slot, name in enumerate(("<a>", "<b>")))
    output = node["BlockLoRAInspect"].execute(stack)
    report, table, picture = output.result
    assert "<a> and <b>: cannot tell" in report and len(table.splitlines()) == 4
    assert picture.ndim == 4 and picture.shape[-1] == 3 and 0 <= float(picture.min()) < float(picture.max()) <= 1
    assert output.ui["text"] == (report,) and len(output.ui["images"]) == 1


@pytest.mark.usefixtures("folders")
def test_inspect_knows_a_weight_by_every_name(node: dict[str, Any], base: Base) -> None:
    stems, stem = model_stems(base.model), next(stem for stem in adaptable(base) if "attn1_to_q" in stem)
    same = next(other for other, weight in stems.items() if weight == stems[stem] and other != stem)
    kohya = make_lora(base, "kohya", 0, scheme=None, stems=[stem])
    other = make_lora(base, "other", 1, scheme=None, stems=[stem]).renamed_layers({stem: same})
    alone = node["BlockLoRAInspect"].execute((kohya, other)).result[0]
    assert "kohya and other: cannot tell. Their files name no weight in common" in alone
    known = node["BlockLoRAInspect"].execute((kohya, other), base.model, base.clip).result[0]
    assert "kohya and other: will bleed, as far as rows tell. They share" in known


@pytest.mark.usefixtures("folders")
def test_inspect_with_a_model_wants_the_clip_that_files_change(node: dict[str, Any], base: Base) -> None:
    stems = [stem for stem in adaptable(base) if stem.startswith("lora_te")][:2]
    stack = tuple(make_lora(base, name, seed, scheme=None, stems=stems) for seed, name in enumerate(("one", "two")))
    with pytest.raises(ValueError, match="expected CLIP beside MODEL, got none, and one changes the text encoder too"):
        node["BlockLoRAInspect"].execute(stack, base.model)
    assert "one and two: will bleed" in node["BlockLoRAInspect"].execute(stack, base.model, base.clip).result[0]


def test_slots_are_those_of_the_loras_folder(node: dict[str, Any], base: Base, folders: Path) -> None:
    loras = folders / "models" / "loras"
    stems = list(adaptable(base))[:1]
    for name, slot in (("<a>", 3), ("<b>", 3), ("<c>", 4)):
        lora = make_lora(base, name, slot, stems=stems)
        save(loras / "x" / f"{lora.concept.bare}.safetensors", lora)
    (loras / "broken.safetensors").write_bytes(b"broken")
    report, picture = node["BlockLoRASlots"].execute().result
    assert "slot 3: a.safetensors, b.safetensors  CLASH" in report and "slot 4: c.safetensors" in report
    assert "free: 0, 1, 2, 5" in report
    assert picture.shape[-1] == 3


def test_slots_tells_what_this_session_gave_and_looks_again(node: dict[str, Any], base: Base, folders: Path) -> None:
    slots = node["BlockLoRASlots"]
    assert slots.execute().result[0] == "No row-block files here."
    before = slots.fingerprint_inputs()
    ledger.hold_slot("sd15", CONTIGUOUS, Concept("<new>"), 7)
    after = slots.fingerprint_inputs()
    assert "sd15, slot 7 of 16: <new>" in slots.execute().result[0]
    save(folders / "models" / "loras" / "a.safetensors", make_lora(base, "<a>", 1, stems=list(adaptable(base))[:1]))
    (folders / "models" / "loras" / "gone.safetensors").symlink_to(folders / "nowhere")
    assert len({before, after, slots.fingerprint_inputs()}) == 3
