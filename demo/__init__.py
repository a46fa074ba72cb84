"""The embedded default: a small base model, its recipe and the concepts it is taught."""
