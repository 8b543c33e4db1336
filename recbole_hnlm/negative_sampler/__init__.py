"""Negative samplers: how the plain negative item of a positive is chosen. A sampler is one file that defines ``SAMPLER``."""
