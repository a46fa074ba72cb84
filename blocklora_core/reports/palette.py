"""Colours of the pictures: one a concept, the same in every part."""

from __future__ import annotations

import colorsys

Colour = tuple[int, int, int]

INK: Colour = (60, 64, 72)
PAPER: Colour = (252, 252, 253)
FREE: Colour = (228, 230, 235)
WARNING: Colour = (200, 30, 40)
LINE: Colour = (38, 110, 220)
FAINT: Colour = (190, 205, 235)

# Steps of the golden angle keep any number of hues apart.
_STEP = 0.618034


def colour(number: int) -> Colour:
    """The colour of concept `number`, from 0."""
    red, green, blue = colorsys.hsv_to_rgb((0.6 + number * _STEP) % 1.0, 0.72, (0.86, 0.62)[number // 5 % 2])
    return round(red * 255), round(green * 255), round(blue * 255)


def shade(value: float) -> Colour:
    """White for 0 to red for 1 and more; blue for negative values."""
    strength = min(abs(value), 1.0)
    faded = round(255 - 200 * strength)
    return (255, faded, faded) if value >= 0 else (faded, faded, 255)
