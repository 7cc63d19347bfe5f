"""Samples of which only subject, stay, prediction time and labels matter."""

import numpy as np

from datasets.samples import Samples


def make_samples(
    labels: np.ndarray, stay_id: np.ndarray | None = None, subject_id: np.ndarray | None = None
) -> Samples:
    """Samples with labels [n, L]; by default each is of a stay and a subject of its own."""
    index = np.arange(len(labels))
    return Samples(
        subject_id=index + 100 if subject_id is None else subject_id,
        stay_id=index + 300 if stay_id is None else stay_id,
        offset=index,
        bins=index,
        partial_bin_row=index,
        cxr_row=index,
        end_hours=index + 48.0,
        gap_days=index * 0.0,
        labels=labels.astype(np.float32),
        raw_labels=labels,
    )
