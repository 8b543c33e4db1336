"""Which LLM stages a run needs, run in order, and their vectors hung on its training data."""
