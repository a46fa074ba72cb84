"""What one does with concepts inside ComfyUI: a list of files loaded and kept apart."""
