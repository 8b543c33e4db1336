"""Many runs: the side-by-side table of models, negative samplers and seeds, each run in its own process."""
