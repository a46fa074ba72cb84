"""What one does with trained concepts: load, join, merge, export."""

from . import export, files, grams, loader, merge, slots

NODES = [*loader.NODES, *files.NODES, *merge.NODES, *grams.NODES, *export.NODES, *slots.NODES]
