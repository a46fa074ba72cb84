"""What a stack is, and what a merge keeps."""

from . import evaluate, inspect

NODES = [*inspect.NODES, *evaluate.NODES]
