"""What a run would ask of the LLM, counted before any of its time is spent."""
