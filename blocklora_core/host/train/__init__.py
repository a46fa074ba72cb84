"""Training and the collection of Grams inside ComfyUI."""
