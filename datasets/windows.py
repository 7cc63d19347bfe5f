"""Where a sample of a task lies in the store: its hourly bins, its partial bin and its X-ray."""

import numpy as np
import pandas as pd

from datasets.hourly import bins_of, ends_mid_bin

MILLISECONDS = 3.6e6  # of an hour


def last_image(samples: pd.DataFrame, images: pd.DataFrame) -> np.ndarray:
    """Return the row of the last image of each sample's stay at or before its end_hours; -1 if there is none.

    `images` is ordered by (stay_row, hours); `samples` has stay_row and end_hours.
    """
    if images.empty:
        return np.full(len(samples), -1, np.int64)
    image_times = _moment(images["stay_row"], images["hours"])
    sample_times = _moment(samples["stay_row"], samples["end_hours"])
    last = np.searchsorted(image_times, sample_times, side="right") - 1
    same_stay = images["stay_row"].to_numpy()[np.maximum(last, 0)] == samples["stay_row"].to_numpy()
    row: np.ndarray = np.where((last >= 0) & same_stay, last, -1)
    return row


def _moment(stay_row: pd.Series, hours: pd.Series) -> np.ndarray:
    """Return milliseconds on a common clock that keeps stays apart."""
    milliseconds = np.round(hours.to_numpy(np.float64) * MILLISECONDS).astype(np.int64)
    moment: np.ndarray = stay_row.to_numpy(np.int64) << 40 | milliseconds
    return moment


def place_samples(
    samples: pd.DataFrame, stays: pd.DataFrame, images: pd.DataFrame, timestep: float
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Find the hourly bins, the partial bins and the images of samples.

    Samples without a bin (a window of no length) are dropped.

    Args:
        samples: Columns stay_row, end_hours and perhaps cxr_row.
        stays: los_hours of each stay.
        images: stay_row and hours of each image, in this order.
        timestep: Hours per bin.

    Returns:
        The samples with `bins`, `cxr_row`, and `partial_bin_row`, a row of the second table (-1: none).
        stay_row and end_hours of the windows that end inside a bin, before the end of the stay: each once,
        ordered by stay and time.
    """
    end_hours = samples["end_hours"].to_numpy()
    samples = samples.assign(bins=bins_of(end_hours, timestep))
    if "cxr_row" not in samples:
        samples["cxr_row"] = last_image(samples, images)
    samples = samples[samples["bins"] > 0].reset_index(drop=True)
    end_hours, stay_row = samples["end_hours"].to_numpy(), samples["stay_row"].to_numpy()
    before_the_end = end_hours < stays["los_hours"].to_numpy()[stay_row] - 1e-6
    partial = before_the_end & ends_mid_bin(end_hours, timestep)
    windows, row = np.unique(np.stack([stay_row, end_hours], axis=1)[partial], axis=0, return_inverse=True)
    partial_bin_row = np.full(len(samples), -1, np.int64)
    partial_bin_row[partial] = row.ravel()
    table = pd.DataFrame({"stay_row": windows[:, 0].astype(np.int64), "end_hours": windows[:, 1]})
    return samples.assign(partial_bin_row=partial_bin_row), table
