"""An evaluation as text, as plain values for JSON, and as a table for spreadsheets."""

from __future__ import annotations

import csv
import io
import math
from collections import Counter
from collections.abc import Iterator
from typing import Any

from ...evaluation.confusion import confusion
from ...evaluation.figures import ConceptScores, Evaluation, Measured, Summary
from ...evaluation.intervals import Interval
from ...evaluation.scores import mean_alignment

HEADER = (
    "setting", "merged", "concept", "pictures", "image", "text", "mean", "accuracy", "image_kept", "accuracy_kept",
    "drift", "merge_seconds",
)  # fmt: skip
ALL = "all"


def text(evaluation: Evaluation) -> str:
    """The report: a line for each setting, below it one for each concept, then notes."""
    lines = [f"{len(evaluation.names)} concepts: {', '.join(evaluation.names)}. Intervals are 95 %, by bootstrap."]
    for measured, summary in evaluation.summaries:
        lines += [_setting(measured, summary), *_concepts(evaluation, measured)]
    return "\n".join([*lines, *evaluation.notes])


def as_dict(evaluation: Evaluation) -> dict[str, Any]:
    """All figures, those of each picture included, in dicts, lists, strings, numbers and None."""
    return {
        "concepts": list(evaluation.names),
        "settings": [_as_dict(evaluation, *found) for found in evaluation.summaries],
        "notes": list(evaluation.notes),
    }


def table(evaluation: Evaluation) -> str:
    """Comma-separated: a line for each setting and concept, and one, `all`, for each setting."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(HEADER)
    for measured, summary in evaluation.summaries:
        for name, scores in measured.concepts.items():
            figures = _cells(evaluation, measured, name, scores)
            writer.writerow([measured.title, measured.merged, _as_text(name), *figures, None])
        writer.writerow([measured.title, measured.merged, ALL, *_means(measured, summary), _figure(measured.seconds)])
    return out.getvalue()


def _as_text(name: str) -> str:
    """A concept's name as spreadsheets show it: one like +1 would be a formula there."""
    return f"'{name}" if name.startswith(("+", "-", "@")) else name


def mean(values: tuple[float, ...] | list[float]) -> float | None:
    """None for no values."""
    return math.fsum(values) / len(values) if values else None


def kept(evaluation: Evaluation, measured: Measured, name: str) -> tuple[float | None, float | None]:
    """Image alignment and accuracy of one concept over what it has alone; None where that is 0 or was not measured."""
    if evaluation.alone is None or measured not in evaluation.merges:
        return None, None
    alone, now = evaluation.alone, measured
    return (
        _over(mean(now.concepts[name].image), mean(alone.concepts[name].image)),
        _over(mean(now.hits[name]), mean(alone.hits[name])),
    )


def _over(value: float | None, whole: float | None) -> float | None:
    return value / whole if value is not None and whole else None


def _setting(measured: Measured, summary: Summary) -> str:
    parts = [f"image {_interval(summary.image)}"]
    if summary.text is not None:
        parts += [f"text {_interval(summary.text)}", f"mean {summary.mean:.3f}"]
    # Pictures of a class word show no concept.
    if measured.merged != 0:
        parts.append(f"recognised {_interval(summary.accuracy, percent=True)}")
    if summary.image_kept is not None:
        parts.append(f"keeps {_interval(summary.image_kept, percent=True)} of the image alignment alone")
    if summary.accuracy_kept is not None:
        parts.append(f"{_interval(summary.accuracy_kept, percent=True)} of the recognition alone")
    if summary.drift is not None:
        parts.append(f"class drift {_interval(summary.drift, sign='+')}")
    return f"{measured.title}{_merge(measured)}: {', '.join(parts)}"


def _merge(measured: Measured) -> str:
    if measured.seconds is None:
        return ""
    peak = "" if measured.peak_bytes is None else f", {measured.peak_bytes / 2**20:.0f} MiB on top of the base"
    return f" ({measured.seconds:.2f} s{peak})"


def _interval(value: Interval, percent: bool = False, sign: str = "") -> str:
    form = f"{sign}.1%" if percent else f"{sign}.3f"
    return f"{value.mean:{form}} ({value.low:{form}} to {value.high:{form}})"


def _concepts(evaluation: Evaluation, measured: Measured) -> Iterator[str]:
    for name, scores in measured.concepts.items():
        parts = [f"image {mean(scores.image):.3f}"]
        if scores.text:
            parts.append(f"text {mean(scores.text):.3f}")
        if measured.merged != 0:
            parts.append(_recognised(name, scores))
        image, _ = kept(evaluation, measured, name)
        if image is not None:
            parts.append(f"keeps {image:.1%}")
        yield f"  {name}: {', '.join(parts)}"


def _recognised(name: str, scores: ConceptScores) -> str:
    counted = Counter(scores.found)
    others = ", ".join(f"{count} as {other}" for other, count in counted.most_common() if other != name)
    return f"recognised {counted[name]} of {len(scores.found)}{f' ({others})' if others else ''}"


def _figure(value: float | None) -> str:
    return "" if value is None else f"{value:.6g}"


def _cells(evaluation: Evaluation, measured: Measured, name: str, scores: ConceptScores) -> list[Any]:
    drift = mean(measured.drift.get(name, ()))
    image, words = mean(scores.image), mean(scores.text)
    both = None if image is None or words is None else mean_alignment(image, words)
    figures = [image, words, both, mean(measured.hits[name])]
    return [len(scores.image), *map(_figure, [*figures, *kept(evaluation, measured, name), drift])]


def _means(measured: Measured, summary: Summary) -> list[Any]:
    pictures = sum(len(scores.image) for scores in measured.concepts.values())
    return [
        pictures,
        *(_figure(value.mean if isinstance(value, Interval) else value) for value in vars(summary).values()),
    ]


def _as_dict(evaluation: Evaluation, measured: Measured, summary: Summary) -> dict[str, Any]:
    return {
        "title": measured.title,
        "merged": measured.merged,
        "merge_seconds": measured.seconds,
        "merge_peak_bytes": measured.peak_bytes,
        "means": {name: _plain(value) for name, value in vars(summary).items()},
        "confusion": _rows(evaluation, measured),
        "pictures": {
            name: {
                **{key: list(value) for key, value in vars(scores).items()},
                "drift": list(measured.drift.get(name, ())),
            }
            for name, scores in measured.concepts.items()
        },
    }


def _plain(value: Interval | float | None) -> Any:
    return value._asdict() if isinstance(value, Interval) else value


def _rows(evaluation: Evaluation, measured: Measured) -> dict[str, dict[str, float]]:
    """Concept asked for -> concept -> share recognised as it."""
    whole = confusion(measured.found, evaluation.names)
    return {
        name: dict(zip(evaluation.names, whole[evaluation.names.index(name)].tolist(), strict=True))
        for name in measured.concepts
    }
