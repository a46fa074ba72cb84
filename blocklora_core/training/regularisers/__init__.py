"""What keeps a concept in its niche while it learns."""
