"""Runs the LLM stages that a run needs, in order, and attaches their vectors to its training data."""
