"""How the base that draws people is trained: every stage, and the order of them."""
