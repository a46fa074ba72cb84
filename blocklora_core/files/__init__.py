"""Files in and out: our own, and those of other tools."""
