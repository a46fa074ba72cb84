"""The small image-text model that scores pictures of the demo's base."""
