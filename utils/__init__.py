"""Configuration, runs, checkpoints, files and processes; knows no medicine."""

import sys
from importlib.util import find_spec

if find_spec("fcntl") is None:
    sys.exit("error: MedMod needs Linux or macOS; on Windows, use it in WSL")
