"""What `run.py` stands on: the environment, the server and the terminal. Standard library only."""
