"""Runs as RecBole starts them: one in this process, or one process a rank."""
