"""Puts the figures of `bench identity` into a Markdown text, so that none is written by hand.

A table stands between `<!-- table NAME -->` and `<!-- end -->`. A figure stands between `<!-- = EXPRESSION -->` and
`<!-- / -->`, where EXPRESSION is a path into the results, its steps separated by dots, and a format after a colon:
`methods.methods.default.merged.15.image_kept.0:.1%`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

Results = Mapping[str, Any]
Tables = Mapping[str, Callable[[Results], str]]
TABLE = re.compile(r"(<!-- table (\w+) -->\n).*?(<!-- end -->)", re.DOTALL)
FIGURE = re.compile(r"(<!-- = (\S+?):(\S+) -->).*?(<!-- / -->)", re.DOTALL)

PAPER = {
    "gradient_fusion": (0.780, 0.724), "average": (0.703, 0.760), "ed_average": (0.719, 0.749),
    "orthogonal": (0.749, 0.736), "affine": (0.775, 0.743),
}  # fmt: skip
"""Table 1 of arXiv 2503.08575: image and text alignment of 15 merged concepts, whose strengths sum to 1."""
ABLATION = {"blocklora": (0.757, 0.709), "no_erasure": (0.721, 0.713), "no_row_blocks": (0.712, 0.733)}
"""Its Table 3, whose first row disagrees with Table 1."""

TRIED = ("own_3", "own_30", "damping", "niche_1", "niche_1_own_3")
"""The default with one setting or two changed."""
SET_BY_HAND = (*TRIED, "loud_own_10")
"""What is no method of its own."""


def fill(path: Path, results: Results, tables: Tables | None = None) -> None:
    """Rewrite the tables and figures of the text at `path`, if there is one. tables: TABLES by default."""
    if path.is_file():
        path.write_text(filled(path.read_text(encoding="utf-8"), results, tables), encoding="utf-8")


def filled(text: str, results: Results, tables: Tables | None = None) -> str:
    """`text` with its tables and figures made anew. KeyError for one that the results do not have."""
    known = TABLES if tables is None else tables
    text = TABLE.sub(lambda found: f"{found[1]}\n{known[found[2]](results)}\n\n{found[3]}", text)
    return FIGURE.sub(lambda found: f"{found[1]}{format(_at(results, found[2]), found[3])}{found[4]}", text)


def _at(results: Any, path: str) -> Any:
    for step in path.split("."):
        results = results[int(step)] if isinstance(results, list) else results[step]
    return results


def interval(found: list[float] | None, form: str = ".3f") -> str:
    return "" if found is None else f"{found[0]:{form}} ({found[1]:{form}} to {found[2]:{form}})"


def table_of(header: str, rows: Iterator[list[str]]) -> str:
    titles = [title.strip() for title in header.split("|")]
    lines = [titles, ["---"] * len(titles), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _last(found: Results) -> tuple[str, Results]:
    count = max(found["merged"], key=int)
    return count, found["merged"][count]


def methods(results: Results) -> str:
    """Every method, all concepts merged, the best first."""
    found = {name: one for name, one in results["methods"]["methods"].items() if name not in SET_BY_HAND}
    ordered = sorted(found.values(), key=lambda one: -_last(one)[1]["accuracy"][0])
    header = (
        "Method | image alone | image merged | kept | recognised alone | recognised merged | text merged | class drift"
    )
    return table_of(header, map(_method, ordered))


def plain(results: Results) -> str:
    """LoRAs as people have them, all merged, the best first."""
    found = sorted(results["plain"]["methods"].values(), key=lambda one: -_last(one)[1]["image"][0])
    header = "Merged by | image alone | image merged | kept | recognised alone | recognised merged"
    return table_of(header, (_method(one)[:6] for one in found))


def tried(results: Results) -> str:
    """The default beside what was tried in its place."""
    found = results["methods"]["methods"]
    header = "Setting | image alone | image merged | kept | recognised alone | recognised merged"
    return table_of(header, (_method(found[name])[:6] for name in ("default", *TRIED)))


def _method(found: Results) -> list[str]:
    alone, (_, merged) = found["alone"], _last(found)
    return [
        found["title"], f"{alone['image'][0]:.3f}", interval(merged["image"]), interval(merged["image_kept"], ".0%"),
        f"{alone['accuracy'][0]:.0%}", interval(merged["accuracy"], ".0%"), f"{merged['text'][0]:.3f}",
        f"{merged['drift'][0]:+.3f}" if merged["drift"] else "",
    ]  # fmt: skip


def _beside(figures: Mapping[str, tuple[float, float]], results: Results) -> str:
    """The paper's image and text alignment beside ours."""
    found = results["methods"]["methods"]

    def row(name: str, image: float, text: float) -> list[str]:
        _, ours = _last(found[name])
        here = (f"{ours[key][0]:.3f}" for key in ("image", "text"))
        return [found[name]["title"], f"{image:.3f}", f"{text:.3f}", *here]

    header = "Method | paper, image | paper, text | here, image | here, text"
    return table_of(header, (row(name, *given) for name, given in figures.items()))


def counts(results: Results) -> str:
    """Kept image alignment and share recognised at each number merged."""
    found = {name: one for name, one in results["methods"]["methods"].items() if len(one["merged"]) > 1}
    numbers = list(next(iter(found.values()))["merged"])

    def row(one: Results) -> list[str]:
        cells = [
            f"{one['merged'][number]['image_kept'][0]:.0%}, {one['merged'][number]['accuracy'][0]:.0%}"
            for number in numbers
        ]
        return [one["title"], f"100%, {one['alone']['accuracy'][0]:.0%}", *cells]

    return table_of("Method | 1 | " + " | ".join(numbers), map(row, found.values()))


def many(results: Results) -> str:
    """Up to sixty concepts."""
    one = results["many"]["methods"]["many"]
    first = ["alone", f"{one['alone']['image'][0]:.3f}", "", f"{one['alone']['accuracy'][0]:.0%}"]

    def row(count: str, merged: Results) -> list[str]:
        return [
            count,
            interval(merged["image"]),
            interval(merged["image_kept"], ".0%"),
            interval(merged["accuracy"], ".0%"),
        ]

    rows = [first, *(row(count, merged) for count, merged in one["merged"].items())]
    return table_of("merged | image | kept | recognised", iter(rows))


def loudness(results: Results) -> str:
    """What Inspect says of a concept in a merge, beside what became of it."""

    def row(found: Results) -> list[str]:
        return [
            f"{found['low']:.0%} to {found['high']:.0%}", str(found["count"]), f"{found['kept']:.0%}",
            f"{found['least_kept']:.0%}", f"{found['recognised']:.0%}", f"{found['alone']:.0%}",
        ]  # fmt: skip

    header = "interference | concepts in merges | kept | least kept | recognised | recognised alone"
    return table_of(header, map(row, results["methods"]["loudness"]))


TABLES: Tables = {
    "methods": methods, "paper": partial(_beside, PAPER), "ablation": partial(_beside, ABLATION), "counts": counts,
    "many": many, "plain": plain, "loudness": loudness, "tried": tried,
}  # fmt: skip
