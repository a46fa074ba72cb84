"""What files say about themselves, by their headers alone, each read once."""
