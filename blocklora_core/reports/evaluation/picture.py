"""An evaluation as one picture: who is taken for whom, each concept alone and merged, and the curve against n."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from PIL import Image

from ...evaluation.confusion import confusion
from ...evaluation.figures import Evaluation, Measured
from ..palette import FREE, INK, WARNING, Colour, colour, shade
from ..panels import LINE, NAME, Cells, chart, new_panel, page, table
from .text import mean

BAR, BARS, FIGURES = 10, 270, 80
CURVE_HEIGHT = 200
FAINT = 0.6
"""Keeps colours of tables light enough for the figures on them."""


def evaluation_picture(evaluation: Evaluation) -> Image.Image:
    """Confusion of the concepts alone and in the largest merge, bars of both for each concept, curves over merges."""
    panels = [_confusion(evaluation, found) for found in (evaluation.alone, evaluation.largest) if found is not None]
    return page([*panels, *_bars(evaluation), *_curves(evaluation)])


def _confusion(evaluation: Evaluation, measured: Measured) -> Image.Image:
    title = f"{measured.title}: row asked for, column recognised"
    return table(evaluation.names, title, _cells(evaluation, measured), _fill)


def _cells(evaluation: Evaluation, measured: Measured) -> Cells:
    whole = confusion(measured.found, evaluation.names)
    place = {name: at for at, name in enumerate(evaluation.names)}
    return {(row, name): float(whole[place[row], at]) for row in measured.concepts for name, at in place.items()}


def _fill(row: str, column: str, value: float) -> Colour:
    """Blue where it is right, red where it is another."""
    return shade(FAINT * (-value if row == column else value))


def _bars(evaluation: Evaluation) -> Iterator[Image.Image]:
    merged = evaluation.largest
    if merged is None:
        return
    images = {name: mean(scores.image) for name, scores in merged.concepts.items()}
    shares = {name: mean(hits) for name, hits in merged.hits.items()}
    alone = evaluation.alone
    image_alone = {name: mean(alone.concepts[name].image) for name in images} if alone else {}
    share_alone = {name: mean(alone.hits[name]) for name in images} if alone else {}
    yield _bar_chart(evaluation, f"Image alignment, {merged.title}", images, image_alone)
    yield _bar_chart(evaluation, f"Share recognised, {merged.title}", shares, share_alone)


def _bar_chart(
    evaluation: Evaluation, title: str, values: dict[str, float | None], alone: dict[str, float | None]
) -> Image.Image:
    """A bar a concept, in its colour; above it, in grey, what it is alone."""
    high = 2 * BAR + 8
    image, draw = new_panel(
        NAME + BARS + FIGURES, LINE + 6 + len(values) * high, f"{title}{' (grey: alone)' * bool(alone)}"
    )
    for at, (name, value) in enumerate(values.items()):
        top = LINE + 6 + at * high
        ink = colour(evaluation.names.index(name))
        draw.text((0, top + 4), name[:14], fill=ink)
        for place, (found, fill) in enumerate(((alone.get(name), FREE), (value, ink))):
            if found is not None:
                y = top + place * BAR
                draw.rectangle((NAME, y, NAME + found * BARS, y + BAR - 1), fill=fill)
        figures = [f"{found:.2f}" for found in (alone.get(name), value) if found is not None]
        draw.text((NAME + BARS + 6, top + 4), " > ".join(figures), fill=INK)
    return image


def _curves(evaluation: Evaluation) -> Iterator[Image.Image]:
    """Over n, where several were measured, alone as the first."""
    if len(evaluation.merges) < 2:
        return
    found = sorted(
        (one for one in evaluation.summaries if one[0] in evaluation.merges), key=lambda one: one[0].merged or 0
    )
    ticks = [str(measured.merged) for measured, _ in found]
    accuracy = [summary.accuracy.mean for _, summary in found]
    kept = [summary.image_kept.mean for _, summary in found if summary.image_kept]
    if len(kept) < len(found):
        image = [summary.image.mean for _, summary in found]
        yield _curve(
            "Image alignment (dark) and share recognised (red) against the number merged", image, accuracy, ticks
        )
        return
    alone = next(summary for measured, summary in evaluation.summaries if measured is evaluation.alone)
    title = "Image alignment kept (dark) and share recognised (red) against the number merged"
    yield _curve(title, [1.0, *kept], [alone.accuracy.mean, *accuracy], ["1", *ticks])


def _curve(title: str, dark: Sequence[float], red: Sequence[float], ticks: Sequence[str]) -> Image.Image:
    return chart(title, [(dark, INK), (red, WARNING)], CURVE_HEIGHT, ticks)
