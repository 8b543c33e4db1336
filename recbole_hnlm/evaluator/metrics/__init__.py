"""Metrics that RecBole does not have: one file per metric, named after it."""
