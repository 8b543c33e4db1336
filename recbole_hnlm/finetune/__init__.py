"""The fine-tuned route: a collaborative teacher, streamed training triples, and the losses that fine-tune the LLM."""
