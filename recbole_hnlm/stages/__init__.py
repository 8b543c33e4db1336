"""The LLM stages of the text route: profiles, hard negatives and the vectors of texts, each resumable."""
