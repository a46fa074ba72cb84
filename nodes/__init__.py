"""What users drag into a graph."""

from . import dataset, files, merge, train

NODES = [*dataset.NODES, *train.NODES, *files.NODES, *merge.NODES]
