"""Training and the collection of Grams inside ComfyUI."""

from .train import TrainJob, train_concept

__all__ = ["TrainJob", "train_concept"]
