"""People drawn from genes: the corpus that a base which can draw faces learns from."""
