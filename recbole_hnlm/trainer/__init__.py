"""Trainers: safe checkpoints and data parallelism over RecBole's trainers."""
