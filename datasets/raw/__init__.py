"""Raw tables of MIMIC-IV and MIMIC-CXR-JPG, of any release, plain or gzipped."""
