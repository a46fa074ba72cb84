"""Regional prompts on stock samplers."""
