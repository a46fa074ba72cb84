"""What users drag into a graph."""

from . import dataset, files, grams, merge, sampling_modes, settings, train

NODES = [*dataset.NODES, *settings.NODES, *train.NODES, *files.NODES, *merge.NODES, *grams.NODES, *sampling_modes.NODES]
