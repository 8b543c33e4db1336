"""What every room uses: errors, files, values, paths, the log, and the record of a run."""
