"""A training as the page sees it: the run itself, the board that tells its state, the routes that hand it out."""
