"""Which slot a new concept gets: its own from before, else the lowest that nobody holds."""

from __future__ import annotations

import threading
from hashlib import sha256

import folder_paths

from ..concept.concept import Concept
from ..concept.rows import Scheme
from ..files.io import read_header
from ..files.record import read_record
from ..files.slots import Table, lora_files, occupied_slots, tables

# Slots given to concepts of this session that may not be saved yet: (base, scheme, concept name) -> slot.
_given: dict[tuple[str, Scheme, str], int] = {}
_lock = threading.Lock()


def _own_or_free(taken: dict[int, set[str]], scheme: Scheme, name: str) -> int | None:
    own = sorted(slot for slot, names in taken.items() if names == {name})
    if own:
        return own[0]
    return next((slot for slot in range(scheme.slots) if not taken.get(slot)), None)


def _taken(base: str, scheme: Scheme) -> dict[int, set[str]]:
    taken: dict[int, set[str]] = {}
    for slot, files in occupied_slots(folder_paths.get_folder_paths("loras"), base, scheme).items():
        for file in files:
            record = read_record(read_header(file).get("__metadata__", {}))
            taken.setdefault(slot, set()).add(record.concept.name if record else file.name)
    for (other_base, other_scheme, name), slot in _given.items():
        if (other_base, other_scheme) == (base, scheme):
            taken.setdefault(slot, set()).add(name)
    return taken


def given_slots() -> list[tuple[str, Scheme, int, str]]:
    """(base, scheme, slot, concept) for every training of this session, saved or not; sorted."""
    with _lock:
        held = [(base, scheme, slot, name) for (base, scheme, name), slot in _given.items()]
    return sorted(held, key=lambda given: (given[0], given[1].slots, given[2], given[3]))


def slot_tables() -> list[Table]:
    """Who holds which slot in the user's loras folders."""
    return tables(folder_paths.get_folder_paths("loras"))


def slots_state() -> str:
    """Changes when a file of the loras folders or a slot of this session does."""
    found = lora_files(folder_paths.get_folder_paths("loras"))
    files = sorted(path for path in found if path.is_file())
    states = [f"{path} {entry.st_size} {entry.st_mtime_ns}" for path in files for entry in [path.stat()]]
    return sha256("\n".join([*states, *map(str, given_slots())]).encode()).hexdigest()


def hold_slot(base: str, scheme: Scheme, concept: Concept, slot: int) -> None:
    """Remember a slot that was set by hand, so that no other training of this session is given it."""
    scheme.check_slot(slot)
    with _lock:
        _given[base, scheme, concept.name] = slot


def choose_slot(base: str, scheme: Scheme, concept: Concept) -> int:
    """The slot for `concept` on `base`: its own, from a file in the loras folders or a training
    of this session, else the lowest free one. ValueError when all are taken, with the remedy.
    """
    with _lock:
        key = (base, scheme, concept.name)
        taken = _taken(base, scheme)
        slot = _given.get(key, _own_or_free(taken, scheme, concept.name))
        if slot is None:
            holders = sorted({name for names in taken.values() for name in names})
            raise ValueError(
                f"Slot: expected a free one among {scheme.slots} for {base}, all are held: {', '.join(holders[:6])}"
                f"{' and others' if len(holders) > 6 else ''}. Move concepts that you will not merge with this one "
                "out of the loras folder, or set the slot of one of them by hand."
            )
        _given[key] = slot
        return slot
