"""Small plots drawn with Pillow: the loss curve that training shows."""

from __future__ import annotations

import math
from collections.abc import Sequence

from PIL import Image, ImageDraw

WIDTH, HEIGHT, MARGIN = 480, 240, 28
INK, LINE, FAINT, PAPER = (60, 64, 72), (38, 110, 220), (190, 205, 235), (252, 252, 253)


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


def loss_curve(losses: Sequence[float], steps: int, title: str, sample: Image.Image | None = None) -> Image.Image:
    """Loss per step, its running mean over 20 steps, and a sample picture beside it when there is one."""
    picture = Image.new("RGB", (WIDTH + (HEIGHT if sample else 0), HEIGHT), PAPER)
    draw = ImageDraw.Draw(picture)
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
    if sample:
        picture.paste(sample.resize((HEIGHT, HEIGHT), Image.Resampling.LANCZOS), (WIDTH, 0))
    return picture
