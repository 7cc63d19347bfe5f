"""The ground: configuration, runs, loops, metrics and results; knows no medicine."""
