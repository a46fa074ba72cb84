"""The value that travels: one concept's row blocks, and who owns which rows."""
