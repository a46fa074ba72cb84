"""Evaluation inside ComfyUI."""
