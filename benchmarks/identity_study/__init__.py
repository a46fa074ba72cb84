"""What stands behind `bench identity`."""
