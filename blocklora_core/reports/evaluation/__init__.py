"""An evaluation, in words and as a picture."""
