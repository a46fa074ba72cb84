"""LoRA-Composer on stock samplers."""
