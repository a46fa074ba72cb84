"""Merging any number of concepts: a registry of methods, one pure function each."""

from .merge import DEFAULTS, Merged, check_rows, merge
from .options import Options
from .overlap import OVERLAPS, Overlap
from .registry import AUTO, METHODS, Method

__all__ = ["AUTO", "DEFAULTS", "METHODS", "OVERLAPS", "Merged", "Method", "Options", "Overlap", "check_rows", "merge"]
