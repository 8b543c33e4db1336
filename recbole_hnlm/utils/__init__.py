"""What every room uses: errors, files, values, paths, the log, the record of a run."""
