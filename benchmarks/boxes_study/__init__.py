"""What stands behind `bench boxes`."""
