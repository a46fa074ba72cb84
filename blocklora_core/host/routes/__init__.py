"""What the page asks the server: read-only, text and numbers, nothing outside the host's own folders."""
