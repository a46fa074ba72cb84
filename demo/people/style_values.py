"""Shorthand for tables of gene values."""

from __future__ import annotations

from demo.people.genes import Options, Value, Values


def values(option: str, words: dict[str, str], who: str = "man", weight: float = 1.0) -> Values:
    return {name: Value(text, {option: [name]}, who, weight) for name, text in words.items()}


def optional(option: str, words: dict[str, str], none: float) -> Values:
    """Values of a part that may be missing; `none` is the missing part's share."""
    absent = Value("", {f"{option}Probability": 0}, weight=none)
    weight = (1 - none) / len(words)
    present: dict[str, Options] = {name: {option: [name], f"{option}Probability": 100} for name in words}
    return {"none": absent} | {name: Value(words[name], present[name], weight=weight) for name in words}
