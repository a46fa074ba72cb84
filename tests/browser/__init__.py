"""Tests in a browser. A package to pytest: what they share ends with them, and so does the browser's event loop."""
