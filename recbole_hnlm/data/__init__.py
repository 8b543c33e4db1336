"""Data of training: loading, splitting, samplers, loaders, text of atomic files and the vector store."""
