"""Turning published raw dumps into RecBole's atomic files: one file per source, and one line for it in ``registry``."""
