"""A cast's state in a terminal: a table where `rich` is there, as ComfyUI brings it, plain lines else."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ..files.untrusted.text import legible
from .planning import FINISHED, Plan, Row

COLUMNS = ("concept", "slot", "state", "steps", "seconds", "MB")
MOST_ROWS = 200
"""A terminal shows no more with sense; the summary tells of all."""


def show(plan: Plan) -> None:
    """Print the rows and the summary."""
    rows = [_cells(row) for row in plan.rows[:MOST_ROWS]]
    try:
        from rich.console import Console
        from rich.table import Table
        from rich.text import Text
    except ImportError:
        print("\n".join(plain(rows)))
    else:
        table = Table(*COLUMNS)
        for row in rows:
            # As text, never as markup: names come from files.
            table.add_row(*map(Text, row))
        Console().print(table)
    if len(plan.rows) > MOST_ROWS:
        print(f"and {len(plan.rows) - MOST_ROWS} more")
    print(summary(plan))


def plain(rows: Sequence[Sequence[str]]) -> list[str]:
    """The table as lines, its columns below each other."""
    table = [COLUMNS, *rows]
    widths = [max(len(row[at]) for row in table) for at in range(len(COLUMNS))]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in table]


def _cells(row: Row) -> list[str]:
    entry = row.entry
    said = row.state + (f": {legible(entry.error, 80)}" if entry and entry.error else "")
    return [
        legible(row.member.concept.name, 40),
        "-" if row.slot is None else str(row.slot),
        " ".join(said.split()),
        str(row.member.config.steps),
        f"{entry.seconds:.0f}" if entry and entry.seconds else "",
        f"{entry.bytes / 1e6:.1f}" if entry and entry.bytes else "",
    ]


def lines(plan: Plan, under_way: Mapping[str, str]) -> list[str]:
    """A line a concept, as a node shows them. under_way: concept -> how far it is, where that is more than the plan
    knows."""
    rows = plan.rows[:MOST_ROWS]
    more = [f"and {len(plan.rows) - MOST_ROWS} more"] if len(plan.rows) > MOST_ROWS else []
    return [*(_line(row, under_way.get(row.member.concept.name)) for row in rows), *more]


def _line(row: Row, under_way: str | None) -> str:
    concept, slot, state, *_, seconds, size = _cells(row)
    told = [under_way or state, f"slot {slot}" if row.slot is not None else "no slot"]
    if under_way is None and row.state == FINISHED:
        told += [f"{seconds} s"] if seconds else []
        told += [f"{size} MB"] if size else []
    return f"{concept}: {', '.join(told)}"


def summary(plan: Plan) -> str:
    """How many are in which state, how many slots they take, and what the rest will cost."""
    states = ", ".join(f"{count} {state}" for state, count in sorted(plan.states.items()))
    used = len({row.slot for row in plan.rows if row.slot is not None})
    lines = [f"{len(plan.rows)} concepts: {states}", f"{used} of {plan.slots} slots used" if plan.slots else "no slots"]
    left = plan.to_train
    if left:
        steps = sum(row.member.config.steps for row in left)
        lines.append(f"to do: {len(left)} concepts, {steps} steps; {_cost(plan)}")
    return "\n".join(lines)


def _cost(plan: Plan) -> str:
    pace, size = plan.seconds_a_step, plan.bytes_a_concept
    if pace is None or size is None:
        return "time, memory and disk are known once the first is finished"
    steps, count = sum(row.member.config.steps for row in plan.to_train), len(plan.to_train)
    memory = f", {plan.memory / 2**30:.2f} GiB of memory" if plan.memory else ""
    disk = f"{size * count / 1e6:.0f} MB of disk"
    return f"about {_time(pace * steps)} one after the other, {disk}{memory}, as those before"


def _time(seconds: float) -> str:
    hours, minutes = divmod(round(seconds / 60), 60)
    return f"{hours} h {minutes:02d} min" if seconds >= 600 else f"{seconds:.0f} s"
