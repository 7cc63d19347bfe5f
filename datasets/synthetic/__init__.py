"""Synthetic MIMIC-IV and MIMIC-CXR-JPG releases: `python -m datasets.synthetic`."""
