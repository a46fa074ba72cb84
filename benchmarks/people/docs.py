"""Tables of `bench people`, for docs/people.md and the README."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.identity_study.docs import Results, Tables, fill, interval, table_of

BOXES = {"pair": "2 as one picture", "2": "2 boxes", "3": "3 boxes", "5": "5 boxes"}


def arms(results: Results) -> str:
    """Every arm on the test cast, the best merged first."""
    header = (
        "Method | genes right alone | genes right merged | kept | image alone | image merged | recognised merged | "
        "colour-blind merged | text merged"
    )
    return table_of(header, map(_arm, _best_first(results)))


def _best_first(results: Results) -> list[Results]:
    return sorted(results["test"]["arms"].values(), key=lambda one: -one["merged"]["genes"][0])


def _arm(found: Mapping[str, Any]) -> list[str]:
    alone, merged = found["alone"], found["merged"]
    return [
        found["title"], f"{alone['genes'][0]:.3f}", interval(merged["genes"]), interval(found["kept"]["genes"], ".0%"),
        f"{alone['image'][0]:.3f}", interval(merged["image"]), interval(merged["recognised"], ".0%"),
        f"{merged['shapes'][0]:.3f}", f"{merged['text'][0]:.3f}",
    ]  # fmt: skip


def summary(results: Results) -> str:
    """The test in a few columns, the best merged first."""
    rows = (
        [
            one["title"], f"{one['alone']['genes'][0]:.2f}", interval(one["merged"]["genes"], ".2f"),
            interval(one["merged"]["image"], ".2f"), f"{one['merged']['recognised'][0]:.0%}",
        ]
        for one in _best_first(results)
    )  # fmt: skip
    return table_of("Method | traits right alone | traits right, all merged | image, all merged | recognised", rows)


def contrasts(results: Results) -> str:
    """The default against each other arm."""
    titles = {name: one["title"] for name, one in results["test"]["arms"].items()}
    rows = (
        [
            titles[one["arm"]], one["metric"], interval(one["difference"], "+.3f"), f"{one['p_holm']:.4f}",
            "yes" if one["no_worse"] else "no",
        ]
        for one in results["test"]["contrasts"]
    )  # fmt: skip
    return table_of("The default less | score | difference | p (Holm) | no worse by .02", rows)


def settings(results: Results) -> str:
    """Every setting on the development cast; the chosen ones are bold."""
    found, chosen = results["development"]["settings"], results["development"]["chosen"]

    def row(name: str) -> list[str]:
        arm, setting = name.split(": ", 1)
        bold = "**" if chosen[arm] == setting else ""
        one = found[name]
        return [
            f"{bold}{one['title']}: {setting}{bold}", f"{one['alone']['genes'][0]:.3f}",
            f"{one['merged']['genes'][0]:.3f}", f"{one['alone']['image'][0]:.3f}", f"{one['merged']['image'][0]:.3f}",
        ]  # fmt: skip

    return table_of("Setting | genes alone | genes merged | image alone | image merged", map(row, found))


def boxes(results: Results) -> str:
    """Every way to ask for several people in one picture."""
    ways = results["boxes"]["ways"].values()
    layouts = [name for name in next(iter(ways)) if name != "title"]
    heads = [f"{kind}, {BOXES[layout]}" for kind in ("right", "genes", "ground") for layout in layouts]

    def row(found: Mapping[str, Any]) -> list[str]:
        right = [interval(found[layout]["right"], ".0%") for layout in layouts]
        others = [f"{found[layout][kind][0]:.2f}" for kind in ("genes", "ground") for layout in layouts]
        return [found["title"], *right, *others]

    return table_of(" | ".join(["", *heads]), map(row, ways))


def styles(results: Results) -> str:
    """Every way to ask for a person in another style."""
    rows = (
        [one["title"], *(interval(one[metric], ".0%") for metric in ("style", "colours", "ground", "all"))]
        for one in results["style"]["ways"].values()
    )
    return table_of(" | style | person's colours | ground | all of it", rows)


def capacity(results: Results) -> str:
    """Every way at every number merged."""
    ways = list(results["capacity"]["ways"].values())
    columns = [name for name in ways[0] if name != "title"]
    heads = [f"{kind}, {of}" for kind in ("genes", "image") for of in columns] + [f"recognised, {columns[-1]}"]

    def row(found: Mapping[str, Any]) -> list[str]:
        scores = [f"{found[of][kind][0]:.3f}" for kind in ("genes", "image") for of in columns]
        return [found["title"], *scores, interval(found[columns[-1]]["by_genes"], ".0%")]

    return table_of(" | ".join(["", *heads]), map(row, ways))


def _of(stage: str, table: Callable[[Results], str], results: Results) -> str:
    return table(results) if stage in results else "Not run yet."


TABLES: Tables = {
    "arms": partial(_of, "test", arms), "summary": partial(_of, "test", summary),
    "contrasts": partial(_of, "test", contrasts),
    "settings": partial(_of, "development", settings), "boxes": partial(_of, "boxes", boxes),
    "capacity": partial(_of, "capacity", capacity), "styles": partial(_of, "style", styles),
}  # fmt: skip


def of_readme(docs: Path) -> Results:
    """What the README tells figures of: those of `bench identity` and of `bench people`, whose names differ."""
    names = ("evidence.json", "people.json")
    return {key: one for name in names for key, one in json.loads((docs / name).read_text(encoding="utf-8")).items()}


def write_readme(root: Path) -> None:
    fill(root / "README.md", of_readme(root / "docs"), TABLES)
