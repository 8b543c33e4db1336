"""Evaluation: collecting for RecBole's metrics, values per user, false negatives, paired tests."""
