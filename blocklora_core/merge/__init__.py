"""Merging any number of concepts: a registry of methods, one pure function each."""

from .combine import Merged, merge
from .overlap import OVERLAPS, Overlap
from .registry import AUTO, METHODS, Method

__all__ = ["AUTO", "METHODS", "OVERLAPS", "Merged", "Method", "Overlap", "merge"]
