"""Concepts sampled alone and merged, and scored."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator
from dataclasses import replace
from types import ModuleType, SimpleNamespace
from typing import Any

import comfy.model_management
import comfy.utils
import pytest
import torch
from blocklora.blocklora_core.concept.concept import Stack
from blocklora.blocklora_core.evaluation import Evaluation, Reference, text
from blocklora.blocklora_core.host.evaluate.clip_embedder import ClipEmbedder
from blocklora.blocklora_core.host.evaluate.evaluate import Evaluated, evaluate
from blocklora.blocklora_core.host.evaluate.generate import Sampler, Sampling
from blocklora.blocklora_core.host.evaluate.job import EvaluateJob, parse_counts
from blocklora.blocklora_core.host.evaluate.progress import EvaluateCallback, NodeProgress, strip
from blocklora.blocklora_core.host.weights.patching import apply_merge

from tests.host.tiny import Base, adaptable, make_lora, patched, same
from tests.host.tiny_clip import make_text, make_vision

SAMPLING = Sampling(steps=2, cfg=1.0, sampler="euler", scheduler="normal", size=16, seed=5, batch=4)
JOB = EvaluateJob(["a {concept}", "a {concept} on a beach"], pictures=2, counts=(1, 2, 3), sampling=SAMPLING)
NAMES = ("<a>", "<b>", "<c>")


@pytest.fixture(scope="module")
def base(base: Base) -> Base:  # type: ignore[misc]
    """With a text encoder of few layers, which is quick."""
    return Base(base.model, make_text(768), base.vae)


@pytest.fixture(scope="module")
def stack(base: Base) -> Stack:
    stems = list(adaptable(base))[:6]
    return tuple(make_lora(base, name, slot, stems=stems) for slot, name in enumerate(NAMES))


@pytest.fixture(scope="module")
def references() -> tuple[Reference, ...]:
    random = torch.Generator().manual_seed(2)
    words = ("man", "woman", "man")
    return tuple(
        Reference(name, word, (torch.rand(2, 20, 16 + at, 3, generator=random),))
        for at, (name, word) in enumerate(zip(NAMES, words, strict=True))
    )


@pytest.fixture(scope="module")
def vision(tmp_path_factory: pytest.TempPathFactory) -> Any:
    return make_vision(tmp_path_factory.mktemp("vision"))


@pytest.fixture(scope="module")
def text_clip() -> Any:
    return make_text()


@pytest.fixture(scope="module")
def embedder(vision: Any, text_clip: Any) -> ClipEmbedder:
    return ClipEmbedder(vision, text_clip)


class Diary(EvaluateCallback):
    """Writes down what it is told."""

    def __init__(self) -> None:
        self.titles: list[str] = []
        self.planned = self.steps = self.pictures = 0

    def begin(self, pictures: int) -> None:
        self.planned = pictures

    def setting(self, title: str) -> None:
        self.titles.append(title)

    def step(self, pictures: int) -> None:
        self.steps += pictures

    def done(self, pictures: torch.Tensor) -> None:
        self.pictures += len(pictures)


def triple(base: Base) -> tuple[Any, Any, Any]:
    return base.model, base.clip, base.vae


@pytest.fixture(scope="module")
def diary() -> Diary:
    return Diary()


@pytest.fixture(scope="module")
def evaluated(
    base: Base, stack: Stack, references: tuple[Reference, ...], embedder: ClipEmbedder, diary: Diary
) -> Evaluated:
    return evaluate(triple(base), stack, references, embedder, JOB, diary)


@pytest.fixture
def untouched(base: Base) -> Iterator[None]:
    """Weights and patches are the same at the end."""
    sides = (base.model, base.clip.patcher)
    before = [patched(side) for side in sides]
    yield
    assert all(side.patches == {} for side in sides)
    assert all(same(old, patched(side)) for old, side in zip(before, sides, strict=True))


def figures(found: Evaluated) -> dict[str, Any]:
    """All of it but the seconds."""
    return {one.title: (one.concepts, one.merged, one.drift) for one, _ in found.evaluation.summaries}


def test_every_setting_is_measured(evaluated: Evaluated) -> None:
    found = evaluated.evaluation
    assert found.names == NAMES
    assert [(one.title, one.merged, len(one.concepts)) for one, _ in found.summaries] == [
        ("base model, class words", 0, 3), ("each alone", 1, 3), ("2 merged by per_row", 2, 2),
        ("3 merged by per_row", 3, 3),
    ]  # fmt: skip
    for one, _ in found.summaries:
        for scores in one.concepts.values():
            assert len(scores.image) == len(scores.text) == len(scores.found) == JOB.pictures
    assert all(set(one.drift) == set(one.concepts) and one.seconds and one.seconds > 0 for one in found.merges)
    assert not comfy.model_management.is_device_cuda(comfy.model_management.get_torch_device())
    assert all(one.peak_bytes is None for one in found.merges)


def test_subsets_are_nested(evaluated: Evaluated) -> None:
    two, three = evaluated.evaluation.merges
    assert set(two.concepts) < set(three.concepts)


def test_progress_tells_all_that_is_sampled(evaluated: Evaluated, diary: Diary) -> None:
    assert evaluated.pictures.keys() == set(NAMES)
    kinds = 3 + 2 + 3 + len({"man", "woman"}) * 3
    if set(evaluated.evaluation.merges[0].concepts) == {"<a>", "<c>"}:
        kinds -= 1
    assert diary.planned == diary.pictures == kinds * JOB.pictures
    assert diary.steps == diary.planned * SAMPLING.steps
    assert diary.titles[0] == "<a> alone" and len(diary.titles) == kinds


def test_scores_are_those_of_pictures_sampled_one_by_one(
    base: Base, stack: Stack, references: tuple[Reference, ...], embedder: ClipEmbedder, evaluated: Evaluated
) -> None:
    applied = apply_merge(stack, base.model, base.clip)
    prompts = ["a <b>", "a <b> on a beach"]
    seen = []
    for at, prompt in enumerate(prompts):
        alone = replace(SAMPLING, seed=SAMPLING.seed + at)
        seen.append(Sampler(applied.model, applied.clip, base.vae, alone).pictures([prompt])[0])
    difference = torch.stack(seen).int() - evaluated.pictures["<b>"].int()
    # The sums of a batch are rounded in another order.
    assert int(difference.abs().max()) <= 1
    scores = evaluated.evaluation.merges[-1].concepts["<b>"]
    embedded = embedder.images(evaluated.pictures["<b>"].float() / 255)
    wanted = embedder.images(references[1].pictures[0])
    torch.testing.assert_close(torch.tensor(scores.image), (embedded @ wanted.T).clamp(min=0).mean(1))
    texts = embedder.texts([f"A photo depicts {prompt.replace('<b>', 'woman')}" for prompt in prompts])
    torch.testing.assert_close(torch.tensor(scores.text), 2.5 * (embedded * texts).sum(1).clamp(min=0))


@pytest.mark.usefixtures("untouched")
def test_the_same_seed_gives_the_same_report(
    base: Base, stack: Stack, references: tuple[Reference, ...], embedder: ClipEmbedder, evaluated: Evaluated
) -> None:
    again = evaluate(triple(base), stack, references, embedder, JOB)
    assert figures(again) == figures(evaluated)
    assert all(torch.equal(again.pictures[name], evaluated.pictures[name]) for name in NAMES)
    small = replace(JOB, counts=(), pictures=1, drift=False)
    other = evaluate(triple(base), stack, references, embedder, replace(small, sampling=replace(SAMPLING, seed=6)))
    assert not torch.equal(other.pictures["<a>"], evaluated.pictures["<a>"][:1])


def test_concepts_sampled_apart_make_the_same_evaluation(
    base: Base,
    stack: Stack,
    references: tuple[Reference, ...],
    embedder: ClipEmbedder,
    evaluated: Evaluated,
) -> None:
    parts = [
        evaluate(triple(base), stack, references, embedder, replace(JOB, names=names)).evaluation
        for names in (("<a>", "<c>"), ("<b>",))
    ]
    joined, whole = Evaluation.join(parts), evaluated.evaluation
    # The merge's own cost is another each time.
    one, other = ([replace(merge, seconds=None) for merge in found.merges] for found in (joined, whole))
    assert (joined.names, joined.alone, joined.base, one) == (whole.names, whole.alone, whole.base, other)
    assert joined.notes == whole.notes


@pytest.mark.usefixtures("untouched")
def test_nothing_stays_patched_after_a_cancel(
    base: Base, stack: Stack, references: tuple[Reference, ...], embedder: ClipEmbedder
) -> None:
    class Cancel(EvaluateCallback):
        def setting(self, title: str) -> None:
            if "merged" in title:
                raise comfy.model_management.InterruptProcessingException

    with pytest.raises(comfy.model_management.InterruptProcessingException):
        evaluate(triple(base), stack, references, embedder, replace(JOB, pictures=1), Cancel())


def test_the_cancel_button_is_heard(base: Base) -> None:
    comfy.model_management.interrupt_current_processing()
    with pytest.raises(comfy.model_management.InterruptProcessingException):
        Sampler(base.model, base.clip, base.vae, SAMPLING).pictures(["a cat"])


def test_seeds_may_be_given_one_a_picture(base: Base) -> None:
    sampler, prompts = Sampler(base.model, base.clip, base.vae, SAMPLING), ["a cat", "a dog"]
    first, second = SAMPLING.seed, SAMPLING.seed + 1
    assert torch.equal(sampler.pictures(prompts, [first, second]), sampler.pictures(prompts))
    assert not torch.equal(sampler.pictures(prompts, [first, second + 1])[1], sampler.pictures(prompts)[1])


def test_prompts_may_be_encoded_already(base: Base) -> None:
    sampler, text = Sampler(base.model, base.clip, base.vae, SAMPLING), "a cat"
    encoded = base.clip.encode_from_tokens_scheduled(base.clip.tokenize(text))
    assert torch.equal(sampler.pictures([encoded, encoded]), sampler.pictures([text, text]))


def test_pictures_do_not_depend_on_what_is_sampled_with_them(base: Base) -> None:
    prompts = ["a cat", "a dog", "a cat", "a dog on a chair"]
    together = Sampler(base.model, base.clip, base.vae, SAMPLING).pictures(prompts)
    apart = Sampler(base.model, base.clip, base.vae, replace(SAMPLING, batch=1)).pictures(prompts)
    assert together.shape == (4, 16, 16, 3) and together.dtype == torch.uint8
    assert int((together.int() - apart.int()).abs().max()) <= 1
    assert not torch.equal(together[0], together[2])


def test_what_cannot_be_measured_is_told(
    base: Base, stack: Stack, references: tuple[Reference, ...], vision: Any
) -> None:
    nameless = tuple(replace(lora, concept=replace(lora.concept, class_word="")) for lora in stack)
    bare = tuple(replace(reference, class_word="") for reference in references)
    found = evaluate(triple(base), nameless, bare, ClipEmbedder(vision), replace(JOB, counts=(3,), pictures=1))
    report = text(found.evaluation)
    assert "No class word: <a>, <b>, <c>" in report and "no text CLIP is connected" in report
    assert found.evaluation.base is None and found.evaluation.merges[0].drift == {}


def test_bad_input_is_a_clear_error(
    base: Base, stack: Stack, references: tuple[Reference, ...], embedder: ClipEmbedder
) -> None:
    with pytest.raises(ValueError, match="<c>: expected reference pictures, got those of: <a>, <b>"):
        evaluate(triple(base), stack, references[:2], embedder, JOB)
    with pytest.raises(ValueError, match="names of their own, got several called <a>"):
        evaluate(triple(base), (stack[0], stack[0]), references, embedder, JOB)
    with pytest.raises(ValueError, match="expected 1 to 3, the concepts in the stack, got 4"):
        evaluate(triple(base), stack, references, embedder, replace(JOB, counts=(4,)))
    with pytest.raises(ValueError, match=r"expected \{concept\} in every prompt, got 'a cat'"):
        EvaluateJob(["a cat"])
    with pytest.raises(ValueError, match="at least one picture"):
        EvaluateJob(pictures=0)
    with pytest.raises(ValueError, match="expected steps of at least 1"):
        Sampling(steps=0)


def test_counts() -> None:
    assert parse_counts("3, 1, all, 3", 5) == (1, 3, 5) and parse_counts("", 5) == ()
    for bad in ("0", "6", "two", "-1", "1.5"):
        with pytest.raises(ValueError, match="Counts: expected"):
            parse_counts(bad, 5)


def test_previews_show_the_last_pictures() -> None:
    pictures = torch.arange(6, dtype=torch.uint8).view(6, 1, 1, 1).expand(6, 2, 3, 3).contiguous()
    shown = strip(pictures)
    assert shown.size == (12, 2)
    assert [shown.getpixel((3 * at, 0)) for at in range(4)] == [(at, at, at) for at in (2, 3, 4, 5)]


def test_the_node_shows_progress_and_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    shown: list[Any] = []

    def update(bar: Any, value: int, total: int | None = None, preview: Any = None) -> None:
        assert total is None
        shown.append((value, bar.total, preview and preview[1].size))

    # The bar itself may be slow to tell: newer hosts throttle it.
    monkeypatch.setattr(comfy.utils.ProgressBar, "update_absolute", update)
    progress = NodeProgress(None, steps=2)
    progress.begin(3)
    progress.setting("<a> alone")
    for _ in range(3):
        progress.step(2)
    progress.done(torch.zeros(3, 4, 5, 3, dtype=torch.uint8))
    assert shown == [(2, 6, None), (4, 6, None), (6, 6, None), (6, 6, (15, 4))]


@pytest.fixture(scope="module")
def node(pack: ModuleType) -> dict[str, Any]:
    return {kind.__name__: kind for kind in pack.NODES}


@pytest.mark.usefixtures("folders", "untouched")
def test_the_nodes(node: dict[str, Any], base: Base, stack: Stack, vision: Any, text_clip: Any) -> None:
    chain: Any = ()
    for name, word in zip(NAMES, ("man", "woman", ""), strict=True):
        chain = node["BlockLoRAReferences"].execute(name, word, torch.rand(2, 16, 16, 3), chain).result[0]
    kind = node["BlockLoRAEvaluate"]
    kind.hidden = SimpleNamespace(unique_id=None)
    output = kind.execute(
        base.model, base.clip, base.vae, stack, chain, vision, "auto", "error", "a {concept}", 1, "all", True, 1, 2.0,
        "euler", "normal", 16, 0, text_clip,
    )  # fmt: skip
    report, data, table, picture, pictures = output.result
    assert "3 merged by per_row (" in report and "class drift" in report
    assert [one["merged"] for one in json.loads(data)["settings"]] == [0, 1, 3]
    rows = list(csv.DictReader(io.StringIO(table)))
    assert {row["concept"] for row in rows} == {*NAMES, "all"} and len(rows) == 12
    assert picture.shape[-1] == 3 and pictures.shape == (3, 16, 16, 3) and pictures.dtype == torch.float32
    assert output.ui["text"] == (report,) and len(output.ui["images"]) == 1
    parts = node["BlockLoRAEvaluatePictures"].execute(
        pictures, chain, vision, "<a>\n<b>\n<c>", "", "0.5, 0, 0.5, 1, <a>, <a> on a beach", text_clip
    )
    report, data, table, picture, seen = parts.result
    assert "<a>: image" in report and seen.shape == (6, 224, 224, 3)
    scores = json.loads(data)["settings"][0]["pictures"]
    assert [len(scores[name]["image"]) for name in NAMES] == [4, 1, 1]
