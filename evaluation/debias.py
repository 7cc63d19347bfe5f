"""Sizes of differences without the part that is noise: the calibration error, and gaps between groups.

Such a size, a sum of absolute values or a range, is made larger by noise, and larger again in each resample.
It is taken to be `t` times the observed one, where `t` times the observed differences and noise together give
the observed size: on average, for an estimate, and in each resample, for an interval.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import scipy  # whose parts are imported where they are first used

STEPS = 100  # more than Newton's method needs on a convex function
PRECISION = 1e-12  # of a scale
TINY = np.finfo(float).tiny

Size = Callable[[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]


class BinGaps(NamedTuple):
    """For each of K bins the gap between probabilities and truth, times the share of samples in the bin."""

    gap: np.ndarray  # [K], signed
    deviation: np.ndarray  # [K], standard deviation of the gap over draws of subjects

    @property
    def plugin(self) -> float:
        """The calibration error with its bias."""
        return float(np.abs(self.gap).sum())

    @property
    def error(self) -> float:
        """The calibration error without bias, from 0 to the plug-in.

        Noise is normal, as in the correction of Kumar, Liang & Ma (2019). Theirs is one step towards this
        one, and leaves 2 - sqrt(2) = 59 % of the bias where predictions are perfectly calibrated.
        """
        scale = 1.0  # the expected plug-in is convex, and too large here: Newton's method does not overshoot
        if self._expected(0)[0] >= self.plugin:
            return 0.0
        for _ in range(STEPS):
            expected, slope = self._expected(scale)
            step = (expected - self.plugin) / slope
            scale -= step
            if not step > PRECISION:
                break
        return scale * self.plugin

    def _expected(self, scale: float) -> tuple[float, float]:
        """Return the plug-in that is expected of `scale` times the gaps, with noise, and how it grows."""
        size = np.abs(self.gap)
        mean = scale * size
        ratio = np.divide(mean, self.deviation, out=np.full(len(mean), np.inf), where=self.deviation > 0)
        noise = self.deviation * np.sqrt(2 / np.pi) * np.exp(-(ratio**2) / 2)
        share = scipy.special.erf(ratio / np.sqrt(2))
        return float((noise + mean * share).sum()), float(size @ share)


def bin_gaps(gap: np.ndarray, bins: np.ndarray, count: int, subject: np.ndarray) -> list[BinGaps | None]:
    """Return the gaps of `count` bins for each label, None for one of which no gap is known.

    `gap` [n, L] is that of each sample, NaN if unknown, and `bins` [n, L] its bin; `subject` [n] is the index
    of its subject. Subjects are drawn, with all their samples. With fewer than two no deviation is known, and
    it is 0.
    """
    is_known, labels = ~np.isnan(gap), gap.shape[1]
    shape = (int(subject.max(initial=-1)) + 1, labels, count)
    pair = (subject[:, None] * labels + np.arange(labels))[is_known]  # a subject and a label
    has_any = np.bincount(pair, minlength=shape[0] * labels).reshape(shape[:2]) > 0
    known = np.asarray(has_any.sum(0))  # subjects of each label
    subjects = np.maximum(known, 1)[:, None]
    sums = np.bincount(pair * count + bins[is_known], gap[is_known], math.prod(shape)).reshape(shape)
    by_subject = sums / np.maximum(is_known.sum(0), 1)[:, None]
    total = by_subject.sum(0)
    by_subject -= total / subjects
    squares = np.einsum("slk,slk,sl->lk", by_subject, by_subject, has_any)
    deviation = np.sqrt(squares * subjects / np.maximum(subjects - 1, 1))
    rows = zip(known, total, deviation, strict=True)
    return [BinGaps(own, noise) if any_known else None for any_known, own, noise in rows]


def mean_gaps(parts: list[BinGaps]) -> BinGaps:
    """Return the gaps whose error is the mean error of several labels."""
    return BinGaps(*(np.concatenate(arrays) / len(parts) for arrays in zip(*parts, strict=True)))


def sum_of_absolutes(difference: np.ndarray, direction: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the sums [R] of |difference| [R, K], and how they grow if `direction` [K] is added."""
    return np.abs(difference).sum(1), np.sign(difference) @ direction


def spread_of(difference: np.ndarray, direction: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the ranges [R] of `difference` [R, K], and how they grow if `direction` [K] is added."""
    slope = direction[difference.argmax(1)] - direction[difference.argmin(1)]
    return np.ptp(difference, axis=1), slope


def sizes_in_resamples(observed: np.ndarray, resampled: np.ndarray, size: Size) -> np.ndarray:
    """Return for each resample the true size [R] at which its noise gives the observed size.

    `observed` are the differences [K], `resampled` [R, K] those of the resamples; the noise is how far these
    are off, and that of one without a value (NaN) is 0. Percentiles of what is returned are the ends of an
    interval of the true sizes for which the observed one is neither too small nor too large: 0 where noise
    alone is larger, and the largest if there are several.
    """
    noise = np.nan_to_num(resampled - observed)
    whole = float(size(observed[None], observed)[0][0])
    scale = 1 + size(noise, observed)[0] / max(whole, TINY)  # where the size, which is convex, is too large
    for _ in range(STEPS):
        value, slope = size(scale[:, None] * observed + noise, observed)
        rises = (slope > 0) & (scale > 0)  # else the size is above the observed one for every scale above 0
        step = np.where(rises, (value - whole) / np.where(rises, slope, 1), scale)
        scale = scale - step
        if not (step > PRECISION).any():
            break
    return np.asarray(whole * np.maximum(scale, 0))
