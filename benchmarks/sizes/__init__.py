"""What concepts and trainings take at the real sizes of the models people use."""
