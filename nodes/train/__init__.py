"""Training: pictures, settings, the training itself."""

from . import cast, dataset, settings, train

NODES = [*dataset.NODES, *settings.NODES, *train.NODES, *cast.NODES]
