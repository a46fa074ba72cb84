"""What users drag into a graph."""

from . import dataset, files, merge, settings, train

NODES = [*dataset.NODES, *settings.NODES, *train.NODES, *files.NODES, *merge.NODES]
