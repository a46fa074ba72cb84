"""From pictures to figures: judges, the kept scores, intervals and contrasts."""
