"""Ways to use several concepts while a picture is sampled."""
