"""Pictures and captions, as training takes them."""
