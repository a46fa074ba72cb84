"""What users drag into a graph."""

from . import dataset, export, files, inspect, merge, settings, slots, train

NODES = [
    *dataset.NODES,
    *settings.NODES,
    *train.NODES,
    *files.NODES,
    *merge.NODES,
    *export.NODES,
    *inspect.NODES,
    *slots.NODES,
]
