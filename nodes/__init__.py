"""What users drag into a graph: a room for each part of the menu."""

from . import regions, study, train, use
from .schema import MENU

ROOMS = {"Train": train.NODES, "Use": use.NODES, "Regions": regions.NODES, "Study": study.NODES}
NODES = [node for nodes in ROOMS.values() for node in nodes]

MENU.update({node.__name__: f"BlockLoRA/{room}" for room, nodes in ROOMS.items() for node in nodes})
