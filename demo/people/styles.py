"""All drawing styles, by the name of the package that draws them."""

from __future__ import annotations

from demo.people.held_out_styles import BIG_SMILE, LORELEI, NOTIONISTS
from demo.people.trained_styles import ADVENTURER, MICAH, MINIAVS, OPEN_PEEPS, PERSONAS, TOON_HEAD

TRAINED = (PERSONAS, TOON_HEAD, MICAH, MINIAVS, OPEN_PEEPS, ADVENTURER)
HELD_OUT = (BIG_SMILE, LORELEI, NOTIONISTS)
STYLES = {style.package: style for style in (*TRAINED, *HELD_OUT)}
