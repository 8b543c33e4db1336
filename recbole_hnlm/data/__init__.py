"""Training data: loading, splitting, candidate sampler, loader, text of atomic files and the vector store."""
