"""The side-by-side table: models times negative samplers times seeds on one split, with paired tests."""
