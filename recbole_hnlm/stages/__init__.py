"""Stages before training: profile, negatives, encode; each resumable and runnable alone."""
