"""Figures of runs and results, written as PNG beside their source: `python -m evaluation.plots`."""
