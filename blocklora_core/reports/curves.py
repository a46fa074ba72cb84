"""Small plots drawn with Pillow: the loss curve that training shows, with its samples."""

from __future__ import annotations

import math
from collections.abc import Sequence

from PIL import Image, ImageDraw, ImageOps

from .palette import FAINT, INK, LINE, PAPER

WIDTH, HEIGHT, MARGIN = 480, 240, 28
PREVIEW_WIDTH = WIDTH + HEIGHT
IN_STRIP = 6


def smooth(values: Sequence[float], window: int = 20) -> list[float]:
    """Running mean over the last `window` values."""
    out, total = [], 0.0
    for at, value in enumerate(values):
        total += value - (values[at - window] if at >= window else 0.0)
        out.append(total / min(at + 1, window))
    return out


def _points(values: Sequence[float], steps: int, low: float, high: float) -> list[tuple[float, float]]:
    span = max(high - low, 1e-9)
    across = (WIDTH - 2 * MARGIN) / max(steps - 1, 1)
    return [
        (MARGIN + at * across, HEIGHT - MARGIN - (value - low) / span * (HEIGHT - 2.2 * MARGIN))
        for at, value in enumerate(values)
    ]


def loss_curve(losses: Sequence[float], steps: int, title: str, samples: Sequence[Image.Image] = ()) -> Image.Image:
    """Loss per step and its running mean over 20 steps; beside it the latest sample, below it those that led there."""
    strip = spread(samples[:-1], IN_STRIP)
    side = PREVIEW_WIDTH // IN_STRIP
    picture = Image.new("RGB", (PREVIEW_WIDTH if samples else WIDTH, HEIGHT + (side if strip else 0)), PAPER)
    _draw_curve(ImageDraw.Draw(picture), losses, steps, title)
    if samples:
        picture.paste(_square(samples[-1], HEIGHT), (WIDTH, 0))
    for at, sample in enumerate(strip):
        picture.paste(_square(sample, side), (at * side, HEIGHT))
    return picture


def spread(samples: Sequence[Image.Image], most: int) -> list[Image.Image]:
    """At most so many of them, the first and the last among them, evenly apart."""
    if len(samples) <= most:
        return list(samples)
    return [samples[round(at * (len(samples) - 1) / (most - 1))] for at in range(most)]


def _square(sample: Image.Image, side: int) -> Image.Image:
    """The whole sample, its shape kept."""
    return ImageOps.pad(sample, (side, side), Image.Resampling.LANCZOS, color=PAPER)


def _draw_curve(draw: ImageDraw.ImageDraw, losses: Sequence[float], steps: int, title: str) -> None:
    finite = [value for value in losses if math.isfinite(value)]
    draw.text((MARGIN, 8), title, fill=INK)
    if finite:
        low, high = 0.0, sorted(finite)[int(len(finite) * 0.98)] * 1.1
        clipped = [min(value, high) for value in finite]
        for values, colour, width in ((clipped, FAINT, 1), (smooth(clipped), LINE, 2)):
            if len(values) > 1:
                draw.line(_points(values, steps, low, high), fill=colour, width=width)
        draw.text((4, MARGIN), f"{high:.3f}", fill=INK)
        draw.text((4, HEIGHT - MARGIN - 6), "0", fill=INK)
    draw.line([(MARGIN, HEIGHT - MARGIN), (WIDTH - MARGIN, HEIGHT - MARGIN)], fill=INK)
    draw.text((WIDTH - MARGIN - 60, HEIGHT - MARGIN + 4), f"{steps} steps", fill=INK)
