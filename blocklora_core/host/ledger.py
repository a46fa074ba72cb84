"""Which slot a new concept gets: its own from before, else the lowest that nobody holds."""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path

import folder_paths

from ..concept.concept import BlockLoRA, Concept
from ..concept.rows import Parts, Scheme
from ..files.catalogue.index import INDEX
from ..files.slots import Table, lora_files, owners_of_slots, tables, unreadable_files
from .claims import Claim, claims
from .disk import index_file, interrupted_folder
from .interrupt import cancellable

# Slots given by this server, also where its claims cannot be written: (base, scheme, concept name) -> slot.
_given: dict[tuple[str, Scheme, str], int] = {}
_lock = threading.Lock()

INDEX.path = index_file


def _folders() -> list[str]:
    # A training that was broken off keeps its slot: it goes on in it.
    return [*folder_paths.get_folder_paths("loras"), str(interrupted_folder())]


def _own_or_free(taken: dict[int, set[str]], scheme: Scheme, name: str) -> list[int]:
    """Slots that may be had, the best first."""
    own = sorted(slot for slot, names in taken.items() if names == {name})
    return [*own, *(slot for slot in range(scheme.slots) if not taken.get(slot))]


def taken_slots(base: str, scheme: Scheme, parts: Collection[Parts]) -> dict[int, set[str]]:
    """Slot -> concepts that hold it: in files of the loras folders, or in trainings that are not saved yet."""
    with _lock, cancellable():
        return _taken(base, scheme, parts)


def _taken(base: str, scheme: Scheme, parts: Collection[Parts]) -> dict[int, set[str]]:
    taken = owners_of_slots(_folders(), base, scheme, parts)
    for claim in _all_given():
        if (claim.base, claim.scheme) == (base, scheme):
            taken.setdefault(claim.slot, set()).add(claim.concept)
    return taken


def _all_given() -> set[Claim]:
    return {*claims(), *(Claim(base, scheme, slot, name) for (base, scheme, name), slot in _given.items())}


def given_slots() -> list[tuple[str, Scheme, int, str]]:
    """(base, scheme, slot, concept) for every training whose concept is not saved yet; sorted."""
    with _lock:
        held = [(claim.base, claim.scheme, claim.slot, claim.concept) for claim in _all_given()]
    return sorted(held, key=lambda given: (given[0], given[1].slots, given[2], given[3]))


def slot_tables() -> list[Table]:
    """Who holds which slot in the user's loras folders."""
    with cancellable():
        return tables(_folders())


def passed_over() -> dict[Path, str]:
    """Files of the loras folders that cannot be read, and why: they hold no slot."""
    return unreadable_files(_folders())


def slots_state() -> str:
    """Changes when a file of the loras folders or a slot that was given does."""
    state = sha256()
    for path in sorted(lora_files(_folders())):
        try:
            entry = path.stat()
        except OSError:
            continue
        state.update(os.fsencode(path) + f" {entry.st_size} {entry.st_mtime_ns}\n".encode())
    return sha256(state.digest() + "\n".join(map(str, given_slots())).encode()).hexdigest()


def hold_slot(base: str, scheme: Scheme, concept: Concept, slot: int) -> None:
    """Remember a slot that was set by hand, so that no other training is given it."""
    scheme.check_slot(slot)
    with _lock:
        _given[base, scheme, concept.name] = slot
        _claim(Claim(base, scheme, slot, concept.name))


def choose_slot(base: str, scheme: Scheme, concept: Concept, parts: Collection[Parts] = ()) -> int:
    """The slot for `concept` on `base`: its own, from a file in the loras folders or a training that is not saved yet,
    else the lowest free one. No other server on these folders is given it too. parts: of the model's weights, see
    `owners_of_slots`. ValueError when all are taken, with the remedy.
    """
    with _lock, cancellable():
        key = (base, scheme, concept.name)
        taken = _taken(base, scheme, parts)
        wanted = [_given[key]] if key in _given else _own_or_free(taken, scheme, concept.name)
        slot = next((slot for slot in wanted if _claim(Claim(base, scheme, slot, concept.name))), None)
        if slot is None:
            holders = sorted({name for names in taken.values() for name in names})
            raise ValueError(
                f"Slot: expected a free one among {scheme.slots} for {base}, all are held: {', '.join(holders[:6])}"
                f"{' and others' if len(holders) > 6 else ''}. Move concepts that you will not merge with this one "
                "out of the loras folder, or set the slot of one of them by hand."
            )
        _given[key] = slot
        return slot


@contextmanager
def held_slot(
    base: str,
    scheme: Scheme,
    concept: Concept,
    slot: int | None,
    *,
    parts: Collection[Parts],
    waits: type[BaseException],
) -> Iterator[int]:
    """`slot`, or for None the one that `choose_slot` gives, for a training. It is free again when the training fails,
    unless it fails by `waits`: what it learnt waits in it.
    """
    before = any(given[:2] == (base, scheme) and given[3] == concept.name for given in given_slots())
    if slot is None:
        slot = choose_slot(base, scheme, concept, parts)
    else:
        hold_slot(base, scheme, concept, slot)
    try:
        yield slot
    except waits:
        raise
    except BaseException:
        if not before:
            release_slot(base, scheme, concept)
        raise


def renew_slots() -> None:
    """The slots that this server has given count for another day."""
    with _lock:
        for (base, scheme, name), slot in _given.items():
            Claim(base, scheme, slot, name).renew()


def release_slot(base: str, scheme: Scheme, concept: Concept) -> None:
    """The slot that `concept` was given is free again, or held by its file from now on."""
    with _lock:
        slot = _given.pop((base, scheme, concept.name), None)
        for claim in {*claims()}:
            if (claim.base, claim.scheme, claim.concept) == (base, scheme, concept.name) and slot in (None, claim.slot):
                claim.give_back()


def release_saved(lora: BlockLoRA) -> None:
    """As `release_slot`, for a concept that has just been saved."""
    if lora.scheme is not None and lora.slot is not None:
        release_slot(lora.base, lora.scheme, lora.concept)


def _claim(claim: Claim) -> bool:
    try:
        return claim.take()
    except (OSError, ValueError) as error:
        logging.warning("BlockLoRA: slot %d cannot be kept from other servers: %s", claim.slot, error)
        return True
