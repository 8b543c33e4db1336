"""Language models: prompts, backends, reply validation and the reply cache."""
