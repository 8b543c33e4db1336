"""Evaluation: repairs of RecBole's metric collection."""
