"""Concepts in prompts."""
