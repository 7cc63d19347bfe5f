"""Few labels: a fraction of the training subjects, of whom a classifier learns."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from datasets.samples import Samples
from datasets.splits import uniform


class Labeled(NamedTuple):
    """The samples of a fraction of the subjects, the number of these, and of all."""

    samples: Samples
    subjects: int
    of: int


def take_fraction(samples: Samples, fraction: float, seed: int) -> Labeled:
    """Return the samples of a fraction of their subjects, which `seed` draws.

    A larger fraction includes the subjects of a smaller one. Each subject has a place in the draw by a hash
    of its id and the seed, whatever other subjects there are, but the first subject of each class of each
    label comes before all others. So no class vanishes: there are more subjects than the fraction says if
    that many are needed, and where the draw has every class anyway, it is as it would be without this rule.
    """
    subjects, row = np.unique(samples.subject_id, return_inverse=True)
    place = np.argsort(np.argsort([uniform(int(subject), f"labels {seed}") for subject in subjects]))
    needed = np.isin(place, list(first_of_classes(place[row], samples.labels)))
    count = max(round(fraction * len(subjects)), int(needed.sum()), 1)
    kept = np.lexsort((place, ~needed))[:count]
    return Labeled(samples.take(np.isin(row, kept)), count, len(subjects))


def first_of_classes(place: np.ndarray, labels: np.ndarray) -> Iterator[int]:
    """Yield the first place of each class of each label, given those of n samples [n] and labels [n, L].

    >>> sorted(set(first_of_classes(np.array([5, 0, 2]), np.array([[1, 0], [0, 0], [1, np.nan]]))))
    [0, 2]
    """
    for values in labels.T:
        for value in np.unique(values[~np.isnan(values)]):
            yield int(place[values == value].min())
