"""Figures of runs and results, written beside their source: `python -m evaluation.plots`."""

import os

# Matplotlib reads this as it is imported. The cells of a notebook hand on the backend of its kernel, which a
# command cannot load.
os.environ["MPLBACKEND"] = "Agg"
