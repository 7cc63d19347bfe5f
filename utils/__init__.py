"""Configuration, runs, checkpoints, files and processes; knows no medicine."""
