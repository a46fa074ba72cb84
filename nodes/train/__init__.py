"""Training: pictures, settings, the training itself."""

from . import dataset, settings, train

NODES = [*dataset.NODES, *settings.NODES, *train.NODES]
