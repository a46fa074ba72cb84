"""What learns, and what is applied, on the activation path."""
