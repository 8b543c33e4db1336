"""Negative selection: one file per way of choosing the plain negative item."""
