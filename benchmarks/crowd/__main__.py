"""How far one index goes: a cast of 100,000 concepts planned, its journal read, its slots dealt. Needs no ComfyUI.

`python -m benchmarks.crowd [CONCEPTS]`. Concepts and groups are drawn from a seed; the figures are this machine's.
"""

from __future__ import annotations

import random
import resource
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import torch

from blocklora_core.cast.journal import DEALT, Entry, Journal
from blocklora_core.cast.member import Cast, Member
from blocklora_core.cast.planning import Known, plan
from blocklora_core.concept.concept import BlockLoRA, Concept
from blocklora_core.concept.layer import Layer
from blocklora_core.concept.rows import Scheme, count
from blocklora_core.files.catalogue.index import FORMAT, INDEX, known
from blocklora_core.files.catalogue.stored import Kept, Times, line_of
from blocklora_core.files.io import save
from blocklora_core.files.slots import owners_of_slots
from blocklora_core.training import TrainConfig

Result = TypeVar("Result")
LARGEST, A_CONCEPT = 8, 3
"""Concepts in a group at most, and groups that a concept is in on average."""
FILES = 500
"""LoRA files whose headers are read, for the cost of one."""


def timed(what: str, work: Callable[[], Result]) -> Result:
    started = time.perf_counter()
    result = work()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"{what}: {time.perf_counter() - started:.2f} s, peak of the process {peak:.0f} MB", flush=True)
    return result


def make_cast(number: int, slots: int) -> Cast:
    """`number` concepts, each in about A_CONCEPT groups of 2 to LARGEST, drawn from a seed."""
    draw, config = random.Random(0), TrainConfig.of(scheme=Scheme(slots=slots))
    keys = [f"c{at:06d}" for at in range(number)]
    members = tuple(Member(key, Concept(f"<{key}>", "man"), Path(key), config) for key in keys)
    groups = []
    for _ in range(number * A_CONCEPT * 2 // (2 + LARGEST)):
        groups.append(tuple(draw.sample(keys, draw.randint(2, LARGEST))))
    return Cast("crowd", members, tuple(groups))


def write_journal(folder: Path, rows: Sequence[Any]) -> Journal:
    """The journal of a cast whose slots are all dealt: its own line, repeated without waiting for the disk."""
    journal = Journal(folder)
    journal.add(Entry(rows[0].member.concept.name, DEALT, rows[0].slot, stamp="0" * 64, inputs="0" * 64))
    line = journal.path.read_text(encoding="utf-8")
    first = f'"{rows[0].member.concept.name}", "event": "dealt", "slot": {rows[0].slot}'
    assert first in line
    with journal.path.open("w", encoding="utf-8") as file:
        for row in rows:
            file.write(line.replace(first, f'"{row.member.concept.name}", "event": "dealt", "slot": {row.slot}'))
    print(f"journal: {journal.path.stat().st_size / 1e6:.1f} MB for {len(rows)} concepts")
    return journal


def ledger_cost(folder: Path, number: int) -> None:
    """What the ledger of a loras folder costs: headers read the first time, the index file from then on."""
    scheme, loras = Scheme(), folder / "loras"
    loras.mkdir()
    for at in range(FILES):
        rows = scheme.rows(at % 16, 64)
        layer = Layer(torch.zeros(count(rows), 4), torch.zeros(4, 64), rows, 64)
        layers = {f"lora_unet_mid_block_attentions_0_transformer_blocks_{n}_attn1_to_q": layer for n in range(64)}
        save(loras / f"{at}.safetensors", BlockLoRA(Concept(f"<f{at}>"), layers, scheme, at % 16, "sd15"))
    started = time.perf_counter()
    held = owners_of_slots(loras, "sd15", scheme)
    seconds = time.perf_counter() - started
    assert sum(map(len, held.values())) == FILES
    print(
        f"headers: {seconds / FILES * 1e3:.2f} ms a file of 64 layers, so {seconds / FILES * number:.0f} s for {number}"
    )
    write_index(folder / "headers.jsonl", loras, number)
    INDEX.path = lambda: folder / "headers.jsonl"
    held = timed(f"ledger of {number} files, by the index", lambda: owners_of_slots(loras, "sd15", scheme))
    assert sum(map(len, held.values())) == FILES
    timed("the same again", lambda: owners_of_slots(loras, "sd15", scheme))


def write_index(path: Path, loras: Path, number: int) -> None:
    """More names for the files, and the index as reading them all would have written it."""
    originals = sorted(loras.iterdir())
    names = [originals[at % FILES] for at in range(FILES, number)]
    copies = [loras / f"{at:06d}.safetensors" for at in range(FILES, number)]
    for copy, original in zip(copies, names, strict=True):
        copy.hardlink_to(original)
    found = {one: known(one) for one in originals}
    with path.open("wb") as file:
        file.write(FORMAT)
        for copy, original in zip([*originals, *copies], [*originals, *names], strict=True):
            state = copy.stat()
            times = Times(state.st_size, state.st_mtime_ns, state.st_ctime_ns)
            file.write(line_of(str(copy), Kept(times, found[original])))
    print(f"index: {path.stat().st_size / 1e6:.1f} MB for {number} files")


def main() -> None:
    number = int(sys.argv[1]) if len(sys.argv) > 1 else 100_000
    cast = timed(f"{number} concepts made", lambda: make_cast(number, 64))
    made = timed("planned anew", lambda: plan(cast, Known("base", Path("none"))))
    most = max(map(len, cast.together))
    used = len({row.slot for row in made.rows})
    print(f"slots: {used} used; the largest of {len(cast.together)} groups has {most}")
    with tempfile.TemporaryDirectory() as folder:
        journal = write_journal(Path(folder), made.rows)
        entries = timed("journal read", journal.entries)
        again = timed("planned from the journal", lambda: plan(cast, Known("base", Path(folder), entries)))
        assert [row.slot for row in again.rows] == [row.slot for row in made.rows]
    with tempfile.TemporaryDirectory() as folder:
        ledger_cost(Path(folder), number)


if __name__ == "__main__":
    main()
