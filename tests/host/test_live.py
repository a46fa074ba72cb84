"""What a page is told of a training, and what it can tell it: stop and keep, use as it is, go on."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import comfy.model_management
import pytest
import torch
from aiohttp import web
from blocklora.blocklora_core.concept.concept import Concept
from blocklora.blocklora_core.host.train import runs
from blocklora.blocklora_core.host.train.live import board as module
from blocklora.blocklora_core.host.train.live import routes
from blocklora.blocklora_core.host.train.live.board import BOARD, Board, Run, thinned
from blocklora.blocklora_core.host.train.train import AUTO_SLOT, TrainJob, TrainResult, train_concept
from blocklora.blocklora_core.training import Trainer

from tests.host.test_runs import cancel, left, train
from tests.host.test_training import CONFIG, pictures, progress_hook
from tests.host.tiny import Base

pytestmark = pytest.mark.usefixtures("folders")


@pytest.fixture(autouse=True)
def _fresh(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(runs, "_unwritten", {})
    kept = vars(BOARD).copy()
    vars(BOARD).update(vars(Board()))
    yield
    vars(BOARD).update(kept)


def last() -> Run:
    return list(BOARD.runs.values())[-1]


def at_step(step: int, action: Callable[[], None]) -> Any:
    return progress_hook(lambda value, *_rest, **_more: action() if value == step else None)


def stopped_at(base: Base, step: int) -> TrainResult:
    with at_step(step, lambda: BOARD.stop(last())):
        return train(base)


def test_the_phases_are_told_in_their_order(base: Base, monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[str] = []
    monkeypatch.setattr(module, "announce", lambda _event, data: told.append(data["phase"]))
    result = train(base)
    assert list(dict.fromkeys(told)) == ["preparing", "encoding", "training", "collecting", "done"]
    state = last().state()
    assert state["step"] == state["steps"] == 4 and not state["running"] and state["kept"] == 0
    assert [loss for _, loss in state["curve"]] == result.losses and state["concept"] == "<ada>"
    assert json.loads(json.dumps(state)) == json.loads(json.dumps(last().state()))


def test_stop_and_keep_ends_well(base: Base, folders: Path) -> None:
    result = stopped_at(base, 3)
    assert len(result.losses) == 3 and result.stopped and result.lora.grams is not None
    assert result.lora.training["steps_done"] == 3
    assert last().phase == "stopped" and last().kept == 3 and len(left(folders, "*.state")) == 1
    assert not left(folders, "*.safetensors")


def test_a_stopped_training_goes_on_and_ends_as_if_it_had_never_stopped(base: Base) -> None:
    whole = train(base)
    with at_step(2, lambda: BOARD.stop(last())):
        train(base, again=True)
    BOARD.go_on(last())
    result = train(base, again=True)
    assert result.resumed == 2 and result.losses == whole.losses and not result.stopped
    assert all(torch.equal(layer.up, result.lora.layers[name].up) for name, layer in whole.lora.layers.items())


def test_what_was_cancelled_can_be_used_as_it_is(base: Base) -> None:
    cancel(base, 2)
    run = last()
    assert run.phase == "cancelled" and run.kept == 2
    BOARD.take(run)
    result = train(base)
    assert len(result.losses) == 2 and result.resumed == 2 and result.stopped and result.lora.grams is not None
    # Asked once: the time after, the rest is made.
    assert len(train(base).losses) == 4


def test_the_partial_file_is_no_lora_to_choose_and_goes_when_the_run_completes(base: Base, folders: Path) -> None:
    for step in (1, 2):
        cancel(base, step)
    interrupted = folders / "user" / "blocklora" / "interrupted"
    assert [path.name.split(".")[0] for path in interrupted.glob("*")] == ["ada_step2"]
    assert not list((folders / "models" / "loras").rglob("*.safetensors"))
    train(base)
    assert not list(interrupted.glob("*"))


def test_a_cancelled_training_keeps_its_slot(base: Base) -> None:
    def run(name: str, press: int | None) -> TrainResult | None:
        job = TrainJob(Concept(name, "person"), pictures(), ("red",), CONFIG.changed(steps=3), AUTO_SLOT)
        try:
            with at_step(press or -1, comfy.model_management.interrupt_current_processing), torch.inference_mode():
                return train_concept(base.model, base.clip, base.vae, job)
        except comfy.model_management.InterruptProcessingException:
            return None
        finally:
            comfy.model_management.interrupt_current_processing(False)

    assert run("<carol>", 1) is None
    other, carol = run("<dave>", None), run("<carol>", None)
    assert other is not None and carol is not None
    assert carol.lora.slot != other.lora.slot and carol.resumed > 0


def test_an_error_is_told(base: Base, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_trainer: Trainer) -> None:
        raise RuntimeError("<b>odd</b>" + "x" * 5000)

    monkeypatch.setattr(Trainer, "prepare", fail)
    with pytest.raises(RuntimeError):
        train(base)
    assert last().phase == "failed" and "<b>odd</b>" in last().message and len(last().message) < 700


def test_a_board_is_read_again_by_the_next_server(base: Base) -> None:
    cancel(base, 2)
    again = Board()
    run = again.find("", "")
    assert run is not None and run.phase == "cancelled" and run.kept == 2 and len(run.state()["curve"]) == 2
    again.take(run)
    assert again.as_it_is == {last().key}


STORED: dict[str, Any] = {
    "id": "a", "node": "7", "workflow": "", "concept": "<a>", "class_word": "", "steps": 3, "key": "", "phase": "done",
    "pictures": 1, "step": 3, "resumed": 0, "kept": 0, "seconds": 0.5, "message": "", "losses": [0.5], "samples": [],
}  # fmt: skip
ODD = [{**STORED, "step": "3"}, {**STORED, "losses": ["x"]}, {**STORED, "phase": "training"}, {**STORED, "odd": 1}]


def test_a_sound_board_is_read(folders: Path) -> None:
    path = folders / "user" / "blocklora" / "runs" / "board.json"
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps([*ODD, STORED]), "utf-8")
    run = Board().find("7", "")
    assert run is not None and run.state()["curve"] == [(1, 0.5)]


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{}",
        "[1]",
        '[{"id": 1}]',
        '[{"strange": 1}]',
        "[[]]",
        "\xff",
        "[" * 100_000,
        *(json.dumps([one]) for one in ODD),
    ],
)
def test_a_board_that_cannot_be_read_starts_anew(folders: Path, text: str) -> None:
    path = folders / "user" / "blocklora" / "runs" / "board.json"
    path.parent.mkdir(parents=True)
    path.write_text(text, "utf-8")
    assert Board().find("7", "") is None


def test_a_node_is_found_in_its_workflow_and_within_subgraphs() -> None:
    def begin(node: str, workflow: str) -> Run:
        return BOARD.begin(node=node, workflow=workflow, concept="<a>", class_word="", steps=1)

    first, inner, other = begin("3", "w"), begin("12:3", "w"), begin("3", "v")
    assert BOARD.find("3", "w") is first and BOARD.find("3", "v") is other
    assert BOARD.find("12:3", "w") is inner and BOARD.find("11:3", "w") is None and BOARD.find("4", "w") is None
    again = begin("3", "w")
    assert BOARD.find("3", "w") is again


def test_a_long_curve_is_thinned() -> None:
    losses = [float(at) for at in range(1001)]
    points = thinned(losses, 100)
    assert len(points) <= 100 and points[-1][0] == 1001 and points[0] == (11, 5.0)
    assert thinned([3.0], 100) == [(1, 3.0)] and thinned([], 100) == []


def _request(**match: str) -> Any:
    return SimpleNamespace(query={"node": "7", "workflow": "w"}, match_info=match)


def test_the_routes_give_the_state_and_take_ids_only() -> None:
    async def told(answer: Any) -> Any:
        return json.loads((await answer).text)

    assert asyncio.run(told(routes.last_run(_request()))) is None
    run = BOARD.begin(node="7", workflow="w", concept="<a>", class_word="", steps=9)
    assert asyncio.run(told(routes.last_run(_request())))["id"] == run.id and run.watched
    assert asyncio.run(told(routes.act(_request(id=run.id, action="stop"))))["stopping"] and run.stop_wanted
    for match in ({"id": "0", "action": "stop"}, {"id": run.id, "action": "begin"}):
        with pytest.raises(web.HTTPNotFound):
            asyncio.run(told(routes.act(_request(**match))))


def test_a_page_that_looks_needs_no_picture_of_the_host(base: Base) -> None:
    shown: list[Any] = []

    def look(_value: int, _total: int, preview: Any, **_node: Any) -> None:
        shown.append(preview)
        BOARD.find("", "")

    with progress_hook(look):
        train(base, preview_every=1)
    assert shown[0] is not None and shown[1:] == [None] * 3
    assert [sample["step"] for sample in last().samples] == [1, 2, 3, 4]
