"""One page on many runs: `python -m evaluation.report` writes a single HTML file that needs no network."""
