"""One script a claim; each ends in one JSON line."""
