"""A stand-in for comfy-aimdo that keeps its pages in ordinary memory. See ../sitecustomize.py."""
