"""Data of training: interactions, samplers, loaders, text of atomic files and the vector store."""
