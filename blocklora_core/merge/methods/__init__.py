"""The merge methods, one pure function each."""
