"""The README's pictures of the demo."""
