"""A soak: a real server, random actions of users and of bad luck, and what became of what was learnt."""
