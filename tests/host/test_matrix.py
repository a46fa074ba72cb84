"""docs/models.md says what holds: what the pack does on each architecture that the host knows.

BLOCKLORA_MATRIX=all for every architecture, else QUICK alone; BLOCKLORA_MATRIX=write for all, and the table anew.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path

import comfyui_version
import pytest
from blocklora.blocklora_core.host.text.tokens import encoder_tokenizers

from launcher.layout import COMFYUI_VERSION
from tests.conftest import ROOT
from tests.host.architectures import ARCHITECTURES, KNOWN
from tests.host.matrix import COLUMNS, YES, Subject, cell

DOCUMENT = ROOT / "docs" / "models.md"
FORM = os.environ.get("BLOCKLORA_MATRIX", "")
QUICK = ("sd15", "flux", "zimage", "qwen_image", "wan21")

LABELS = {
    "sd15": "SD 1.5", "sd20v": "SD 2 (v)", "sdxl": "SDXL", "sd35": "SD 3.5", "flux": "Flux.1 dev",
    "flux_schnell": "Flux.1 schnell", "flux2": "Flux.2 dev", "klein": "Flux.2 Klein", "chroma": "Chroma",
    "lumina2": "Lumina Image 2",
    "zimage": "Z-Image", "qwen_image": "Qwen-Image", "wan21": "Wan 2.1", "wan22_5b": "Wan 2.2 5B",
    "wan21_i2v": "Wan 2.1 I2V", "hunyuan_video": "HunyuanVideo", "hunyuan_image": "HunyuanImage 2.1",
    "hidream": "HiDream I1", "cosmos_predict2": "Cosmos Predict2", "omnigen2": "OmniGen2",
    "pixart_sigma": "PixArt Sigma", "ltxv": "LTX-Video", "auraflow": "AuraFlow",
    "anima": "Anima", "krea2": "Krea 2", "kandinsky5": "Kandinsky 5", "longcat": "LongCat-Image",
}  # fmt: skip
NEWER = {"klein", "anima", "krea2", "kandinsky5", "longcat"}
"""Those that the oldest host does not know."""
Row = dict[str, str]

_TABLE = re.compile(r"(<!-- table models -->\n)(.*)(<!-- end -->)", re.DOTALL)
_REFUSED = re.compile(r"no \((\d+)\)")


def written(rows: dict[str, Row]) -> str:
    """The table and, below it, the refusals in full."""
    texts = list(dict.fromkeys(cell for row in rows.values() for name, cell in row.items() if _is_refusal(name, cell)))
    heads = next(iter(rows.values()), {})
    lines = [f"| model | {' | '.join(heads)} |", f"|---{'|---' * len(heads)}|"]
    for label, row in rows.items():
        cells = [f"no ({texts.index(cell) + 1})" if cell in texts else cell for cell in row.values()]
        lines.append(f"| {label} | {' | '.join(cells)} |")
    return "\n".join([*lines, "", *(f"{at}. {text}" for at, text in enumerate(texts, 1)), ""])


def _is_refusal(column: str, text: str) -> bool:
    return column in COLUMNS and text != YES


def read(table: str) -> dict[str, Row]:
    """Inverse of `written`."""
    texts = dict(re.findall(r"^(\d+)\. (.*)$", table, re.MULTILINE))
    if "|" not in table:
        return {}
    heads, _, *lines = [line.strip("| ").split(" | ") for line in table.splitlines() if line.startswith("|")]
    return {
        label: dict(
            zip(heads[1:], [texts[m[1]] if (m := _REFUSED.fullmatch(one)) else one for one in cells], strict=True)
        )
        for label, *cells in lines
    }


def committed() -> dict[str, Row]:
    found = _TABLE.search(DOCUMENT.read_text(encoding="utf-8"))
    return read(found[2]) if found else {}


@pytest.fixture(scope="module")
def found() -> Iterator[dict[str, Row]]:
    """Rows as they are; put into the text at the end, if that is asked for. Others stay as they were."""
    rows: dict[str, Row] = {}
    yield rows
    if FORM == "write":
        every = {**committed(), **rows}
        ordered = {label: every[label] for label in LABELS.values() if label in every}
        text = DOCUMENT.read_text(encoding="utf-8")
        table = written(ordered)
        DOCUMENT.write_text(_TABLE.sub(lambda m: f"{m[1]}{table}{m[3]}", text), encoding="utf-8")


@pytest.mark.parametrize("name", [name for name in KNOWN if FORM or name in QUICK])
def test_a_model_does_what_the_table_says(name: str, found: dict[str, Row], folders: Path) -> None:
    subject = Subject(name, folders)
    row = {"ComfyUI": "newer" if name in NEWER else COMFYUI_VERSION}
    row |= {"text encoders": ", ".join(sorted(encoder_tokenizers(subject.clip)))}
    row |= {column: cell(column, subject) for column in COLUMNS}
    found[LABELS[name]] = row
    for column, text in row.items():
        if _is_refusal(column, text):
            assert re.fullmatch(r"[A-Z][\w ]+: .+[.] .+[.]", text), f"{column}: says it why, and the way out? {text}"
    if FORM != "write":
        assert row == committed().get(LABELS[name]), "BLOCKLORA_MATRIX=write makes the table anew"


def test_what_the_oldest_host_does_not_know() -> None:
    if comfyui_version.__version__ == COMFYUI_VERSION:
        assert {*ARCHITECTURES} - {*KNOWN} == NEWER


@pytest.mark.skipif(FORM == "write", reason="the table is written when all rows are there")
def test_the_text_has_every_architecture_in_its_own_form() -> None:
    text = _TABLE.search(DOCUMENT.read_text(encoding="utf-8"))
    assert text is not None and written(read(text[2])) == text[2]
    assert LABELS.keys() == ARCHITECTURES.keys() and list(committed()) == list(LABELS.values())
    assert len(committed()) >= 18
