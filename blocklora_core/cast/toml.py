"""TOML files, read as a stranger's, and values out of them, checked by their types."""

from __future__ import annotations

import math
import sys
from collections.abc import Collection, Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Any, TypeVar

from ..files.untrusted.header import FileError, read_whole
from ..files.untrusted.text import legible
from .member import CastError

Value = TypeVar("Value")

MOST_BYTES = 2**26
"""Of a file: a cast of 100,000 concepts takes a sixth of it."""

_WORDS = {str: "text", int: "a whole number", float: "a number", bool: "true or false", dict: "a table", list: "a list"}


def read_toml(path: Path) -> dict[str, Any]:
    """The file's tables. CastError when it is none."""
    try:
        return _loads(read_whole(path, MOST_BYTES).decode("utf-8-sig"))
    except (FileError, OSError) as error:
        raise CastError(str(error)) from error
    except UnicodeDecodeError as error:
        raise CastError(f"{path}: expected text in UTF-8, got something else. Save it as UTF-8.") from error
    except (ValueError, RecursionError) as error:
        raise CastError(f"{path}: expected TOML, got something else: {legible(str(error))}. Mend that line.") from error


def _loads(text: str) -> dict[str, Any]:
    if sys.version_info >= (3, 11):
        import tomllib
    else:
        try:
            import tomli as tomllib
        except ImportError as error:
            raise CastError("TOML files need Python 3.11, or the package tomli: pip install tomli") from error
    return tomllib.loads(text)


def wrong(path: Path, key: str, expected: str, got: object) -> CastError:
    """What is said of a value that is not what was expected."""
    return CastError(f"{path}, key {legible(key)}: expected {expected}, got {legible(repr(got), 80)}.")


def typed(path: Path, key: str, value: object, kind: type[Value]) -> Value:
    """`value`, which is a `kind`: whole numbers are numbers, too, and true is none. CastError else."""
    if kind is float and type(value) is int:
        value = float(value)
    if type(value) is not kind or (isinstance(value, float) and not math.isfinite(value)):
        raise wrong(path, key, _WORDS.get(kind, kind.__name__), value)
    return value


def texts(path: Path, key: str, value: object) -> tuple[str, ...]:
    """A list of texts. CastError for anything else."""
    return tuple(typed(path, key, one, str) for one in typed(path, key, value, list))


def check_keys(path: Path, where: str, given: Mapping[str, Any], known: Collection[str]) -> None:
    """CastError for a key that there is not."""
    for key in given:
        if key not in known:
            near = get_close_matches(key, known)
            expected = f"a known key, perhaps {' or '.join(near)}" if near else f"one of {', '.join(sorted(known))}"
            raise wrong(path, f"{where}{key}", expected, key)
