"""All that draws a result or puts it into words."""
