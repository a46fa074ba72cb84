"""What users drag into a graph: a room for each part of the menu."""

from . import regions, study, train, use

NODES = [*train.NODES, *use.NODES, *regions.NODES, *study.NODES]
