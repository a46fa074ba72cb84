"""LoRA-Composer (Yang et al., arXiv 2403.11627) on tensors: maps, losses, schedules, mask, re-initialisation."""
