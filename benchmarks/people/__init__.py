"""What stands behind `bench people`."""
