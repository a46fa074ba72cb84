"""Files in and out: our own, and those of other tools."""

from .io import FileError, load, save

__all__ = ["FileError", "load", "save"]
