"""Concepts on the weights of a loaded model."""
