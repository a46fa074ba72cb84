"""The environment that run.py makes: Python, ComfyUI, packages."""
