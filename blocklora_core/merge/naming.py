"""Names of their own for concepts that were given the same one."""

from __future__ import annotations

from ..concept.concept import BlockLoRA, Stack
from ..concept.names import fold


def distinct(stack: Stack) -> tuple[Stack, tuple[str, ...]]:
    """`stack` with later concepts of one name renamed, `<ada>` to `<ada-2>`, and a word about each.

    Names that no other concept has stay, and no new name is one that was given. ValueError where a number does not
    fit, as the name is too long.
    """
    given = {fold(lora.concept.name) for lora in stack}
    owners: dict[str, str] = {}
    members, notes = [], []
    for lora in stack:
        name = lora.concept.name
        if fold(name) in owners:
            name = _free(name, given | set(owners))
            notes.append(f"{lora.label} is called {name} here: {owners[fold(lora.concept.name)]} has its name.")
            lora = _renamed(lora, name)
        owners[fold(name)] = lora.label
        members.append(lora)
    return tuple(members), tuple(notes)


def _renamed(lora: BlockLoRA, name: str) -> BlockLoRA:
    try:
        return lora.renamed(name)
    except ValueError as error:
        which = lora.source or lora.label
        raise ValueError(f"{which}: another concept has its name, so it needs a number behind it. {error}") from error


def _free(name: str, taken: set[str]) -> str:
    stem = name.rstrip(">")
    number = 2
    while fold(candidate := f"{stem}-{number}{name[len(stem) :]}") in taken:
        number += 1
    return candidate
