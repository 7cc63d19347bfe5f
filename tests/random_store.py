"""A finished store of random stays, for tests of what reads one."""

from pathlib import Path

import numpy as np

from benchmarks import random_store

STAYS = {"train": 14, "val": 8, "test": 8}


def write_random_store(folder: Path, seed: int = 0, first_subject: int = 100) -> Path:
    """Stays of 49 to 60 hours, one a subject; three of four have an X-ray at hour 20; labels alternate.

    A sample reads 48 hours. Subjects are numbered from `first_subject` on, those of train first, then val,
    then test.
    """
    length = np.random.default_rng(seed).integers(49, 61, sum(STAYS.values()))
    hours = dict(zip(STAYS, np.split(length, np.cumsum(list(STAYS.values()))[:-1]), strict=True))
    return random_store.write_random_store(folder, hours, 48, 4, seed, first_subject)
