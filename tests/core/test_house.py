"""The house keeps its order: small rooms, short files, imports without a circle."""

from __future__ import annotations

import ast
from collections import Counter
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

from tests.conftest import ROOT

MOST_FILES, MOST_LINES = 12, 300
HOUSE = ("blocklora_core", "nodes", "benchmarks", "demo", "launcher")
FILES = sorted(path.relative_to(ROOT) for room in HOUSE for path in (ROOT / room).rglob("*.py"))
MODULES = {".".join(path.with_suffix("").parts).removesuffix(".__init__"): path for path in FILES}


def imports(name: str) -> Iterator[str]:
    """The modules of the house that `name` imports."""
    path = MODULES[name]
    package = name.split(".") if path.name == "__init__.py" else name.split(".")[:-1]
    for node in ast.walk(ast.parse(text(path))):
        if isinstance(node, ast.ImportFrom):
            start = package[: len(package) - node.level + 1] if node.level else []
            source = ".".join([*start, *([node.module] if node.module else [])])
            for alias in node.names:
                found = f"{source}.{alias.name}"
                yield found if found in MODULES else source


def text(path: Path) -> str:
    return (ROOT / path).read_text(encoding="utf-8")


def test_rooms_are_small() -> None:
    rooms = Counter(path.parent for path in FILES)
    assert {str(room): files for room, files in rooms.items() if files > MOST_FILES} == {}


def test_files_are_short() -> None:
    lines = {str(path): len(text(path).splitlines()) for path in FILES}
    assert {path: count for path, count in lines.items() if count > MOST_LINES} == {}


def test_rooms_say_what_they_are_for() -> None:
    faces = [path for path in FILES if path.name == "__init__.py"]
    assert [str(path) for path in faces if not ast.get_docstring(ast.parse(text(path)))] == []


def test_imports_run_in_no_circle() -> None:
    faces = {name for name, path in MODULES.items() if path.name == "__init__.py"}
    # A package's face only hands names on.
    edges = {name: {one for one in imports(name) if one in MODULES} - faces for name in MODULES.keys() - faces}
    TopologicalSorter(edges).prepare()


def test_a_file_s_tests_share_a_process(request: pytest.FixtureRequest) -> None:
    """With pytest 9.2, pytest-xdist 3.8 no longer adds the group that it schedules by."""
    if hasattr(request.config, "workerinput"):
        assert "@" in request.node.nodeid
