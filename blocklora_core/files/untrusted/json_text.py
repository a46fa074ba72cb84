"""JSON out of a stranger's file: no deeper, longer or larger in number than any honest record is."""

from __future__ import annotations

import json
import math
import re
from typing import Any

MOST_LETTERS = 16 * 2**20
MOST_DEPTH = 32

_HALF = re.compile(r"\\u[dD][89a-fA-F]|[\ud800-\udfff]")


def parse_json(text: str) -> Any:
    """The value in `text`. ValueError when it is no JSON, or such as would take the reader with it."""
    if len(text) > MOST_LETTERS:
        raise ValueError(f"expected at most {MOST_LETTERS} letters of JSON, got {len(text)}")
    try:
        value = json.loads(text)
    except RecursionError as error:
        raise ValueError(f"expected JSON at most {MOST_DEPTH} deep, got deeper") from error
    _check_depth(value)
    check_letters(text, value)
    return value


def check_letters(text: str, value: object) -> None:
    """ValueError where `value`, read from the JSON `text`, holds one half of a pair that only together is a letter: no
    file can hold that, and other readers refuse it."""
    if _HALF.search(text) is None:
        return
    try:
        json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError as error:
        raise ValueError("expected whole letters in JSON, got halves of some") from error


def parse_object(text: str) -> dict[str, Any]:
    """The object in `text`; ValueError as in `parse_json`, and for any other value."""
    value = parse_json(text)
    if not isinstance(value, dict):
        raise ValueError(f"expected a JSON object, got {type(value).__name__}")
    return value


def finite(value: object) -> float:
    """`value` as a float; ValueError unless it is a number that a float holds."""
    if isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < math.inf:
        try:
            return float(value)
        except OverflowError:
            pass
    raise ValueError(f"expected a finite number, got {str(value)[:40]}")


def _check_depth(value: object) -> None:
    level = [value]
    for _ in range(MOST_DEPTH):
        level = [part for whole in level for part in _parts(whole) if isinstance(part, dict | list)]
        if not level:
            return
    raise ValueError(f"expected JSON at most {MOST_DEPTH} deep, got deeper")


def _parts(value: object) -> list[object]:
    if isinstance(value, dict):
        return list(value.values())
    return value if isinstance(value, list) else []
