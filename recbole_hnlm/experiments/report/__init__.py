"""A finished run, comparison or search as one HTML file: inputs, a plain view of them, plots, the page."""
