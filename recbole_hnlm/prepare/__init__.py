"""Turning published raw dumps into RecBole's atomic files: a file per source, a line per source in ``registry``."""
