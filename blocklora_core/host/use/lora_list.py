"""The files of a list, loaded as a stack."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from difflib import get_close_matches
from functools import lru_cache
from pathlib import Path, PurePosixPath
from typing import TypeVar

import folder_paths

from ...concept.concept import BlockLoRA, Stack
from ...concept.lora_list import MOST_TOLD, Entry, ListError, parse_list
from ...files.formats import files_of
from ...files.io import load
from ...files.shown import unheard_note, with_words
from ..disk import lora_file
from ..interrupt import check_cancel

Value = TypeVar("Value")


def load_list(text: str) -> Stack:
    """The concepts of the lines that are on, at their strengths. ListError names every bad line and missing file."""
    return tuple(_each_on(text, _loaded))


def unheard_words(text: str, stack: Stack) -> list[str]:
    """What to tell of words that do not call their file. stack: what `load_list` made of the same text."""
    on = (entry for entry in parse_list(text) if entry.on)
    notes = (unheard_note(lora, entry.words) for entry, lora in zip(on, stack, strict=True))
    return [note for note in notes if note]


def check_files(text: str) -> None:
    """ListError for bad lines and missing files, as `load_list` raises it; no file is read."""
    _each_on(text, lambda entry: find_lora(entry.file))


def _each_on(text: str, do: Callable[[Entry], Value]) -> list[Value]:
    done, problems = [], dict[int, str]()
    for entry in parse_list(text):
        if not entry.on:
            continue
        try:
            done.append(do(entry))
        except ValueError as error:
            problems[entry.number] = str(error)
        if len(problems) > MOST_TOLD:
            break
    if problems:
        raise ListError(problems)
    return done


def list_state(text: str) -> str:
    """Changes when a file of the list does."""
    try:
        paths = [file for entry in parse_list(text) for file in files_of(find_lora(entry.file))]
    except ValueError as error:
        return str(error)
    return " ".join(f"{path} {(state := path.stat()).st_size} {state.st_mtime_ns}" for path in paths)


def find_lora(name: str) -> Path:
    """The file that `find_name` finds."""
    return lora_file(find_name(name))


def find_name(name: str, hint: bool = True) -> str:
    """What the loras folders call the file that a person calls `name`: with or without its ending and its folder, in
    any case. The name itself, letter by letter, is always that file's.

    ValueError when there is none, or when several could be meant. hint: whether it tells files of nearly that name,
    which takes a while in a large folder.
    """
    names = folder_paths.get_filename_list("loras")
    wanted = name.replace("\\", "/").lstrip("/")
    for called in _by_form(tuple(names)):
        found = called.get(wanted.casefold(), [])
        exact = [one for one in found if one.replace("\\", "/") == wanted]
        if len(found) > 1 and not exact:
            several = ", ".join(sorted(found)[:5])
            raise ValueError(f"expected one file called {name!r}, got {several}. Write it as one of these.")
        if found:
            return (exact or found)[0]
    near = get_close_matches(name, names, n=3, cutoff=0.5) if hint else []
    hints = f" Did you mean {' or '.join(near)}?" if near else " Press R to refresh the list of files."
    raise ValueError(f"expected a file of the loras folder, got {name!r}.{hints}")


@lru_cache(maxsize=2)
def _by_form(names: tuple[str, ...]) -> list[dict[str, list[str]]]:
    """For each way in which people write a name: how it is written then -> the files that it may be."""
    ways = []
    for form in (_whole, _without_suffix, _without_folder, _stem):
        called: dict[str, list[str]] = {}
        for name in names:
            called.setdefault(form(name), []).append(name)
        ways.append(called)
    return ways


def _whole(name: str) -> str:
    return name.replace("\\", "/").casefold()


def _without_suffix(name: str) -> str:
    return str(PurePosixPath(_whole(name)).with_suffix(""))


def _without_folder(name: str) -> str:
    return PurePosixPath(_whole(name)).name


def _stem(name: str) -> str:
    return PurePosixPath(_whole(name)).stem


def _loaded(entry: Entry) -> BlockLoRA:
    # Only here: before a run, the host may still hold a cancel of the last one.
    check_cancel()
    lora = load(find_lora(entry.file)).with_strength(entry.strength, entry.clip)
    if not entry.words:
        return lora
    with suppress(ValueError):  # Several words call it, none is its name.
        lora = lora.renamed(entry.words)
    return with_words(lora, entry.words)
