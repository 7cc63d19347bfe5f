"""Latent disease states of synthetic admissions, and how strongly they show in everything else."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from statistics import NormalDist

import numpy as np
import polars as pl
from numpy.random import Generator

from datasets.schema import RESOURCES
from datasets.synthetic.common import DAY, HOUR

LATENTS = ("severity", "heart_failure", "consolidation", "effusion", "renal", "chronic")
SEVERITY_CORRELATION = np.array([1.0, 0.45, 0.4, 0.4, 0.4, 0.15])  # of each latent state with severity
PATIENT_VARIANCE = np.array([0.2, 0.5, 0.1, 0.3, 0.6, 0.9])  # the part that a patient's admissions share
Loadings = Mapping[str, float]  # weight of each of LATENTS
NO_DEATH = np.iinfo(np.int64).max  # time of death of a patient who survives the admission


@dataclass(frozen=True)
class Simulation:
    """How strongly the latent states show, and how large all noise is: sets the difficulty of the data.

    Latent states are normal with variance 1. `*_explained` is the share of the variance of an outcome's
    liability (a normal score, thresholded at the rate) that they explain; the rest is chance. `vitals_*` are
    relative to each other. `image_*` are standard deviations of a sign, or factors.
    """

    death_rate: float = 0.12  # of admissions, in hospital
    death_explained: float = 0.85
    death_shift: float = 1.2  # added to the severity of those who died in a real cohort (`--for_stays`)
    condition_explained: float = 0.75
    readmission_rate: float = 0.25  # of survivors, within 30 days
    readmission_explained: float = 0.85
    stay_log_sd: float = 0.8  # of the length of an ICU stay, whose median is 60 h
    stay_explained: float = 0.7
    recovery: float = 0.9  # fall of severity over the ICU stay of a survivor
    deterioration: float = 2.0  # rise of severity over the last 24 h before death
    vitals_signal: float = 1.0  # factor of the loadings of vitals on the latent states
    vitals_baseline: float = 0.5  # a patient's own level of each channel
    vitals_private: float = 0.6  # factors of a stay that move many vitals and mean nothing
    vitals_noise: float = 4.0  # first-order autoregressive, hour by hour
    vitals_memory: float = 0.1  # autocorrelation of that noise over one hour
    image_signal: float = 1.5  # factor of the opacity of every sign
    image_error: float = 0.3  # error of each sign, drawn once per study
    image_geometry: float = 0.8  # variation of the body's shape and position
    image_exposure: float = 1.2  # variation of gamma, contrast and brightness
    image_noise: float = 1.0  # grain and texture
    finding_error: float = 0.4  # error of the reader who labels a study


@dataclass(frozen=True)
class Course:
    """Latent states of A admissions over time: initial values [A, 6] and times [A] in seconds since 1970."""

    latents: np.ndarray
    start: np.ndarray  # first ICU admission
    end: np.ndarray  # last ICU discharge
    death: np.ndarray  # NO_DEATH unless in hospital
    simulation: Simulation

    def at(self, rows: np.ndarray, seconds: np.ndarray) -> np.ndarray:
        """Return latent states [n, 6] of admissions `rows` [n] at `seconds` [n]; only survivors improve."""
        start, end, death = self.start[rows], self.end[rows], self.death[rows]
        progress = np.clip((seconds - start) / np.maximum(end - start, HOUR), 0, 1)
        decline = np.clip(1 - (death - seconds) / DAY, 0, 1)
        rise = self.simulation.deterioration * decline
        change = np.where(death == NO_DEATH, -self.simulation.recovery * progress, rise)
        return np.asarray(self.latents[rows] + change[:, None] * np.array([1, 0.5, 0.5, 0.3, 0.5, 0]))


@cache
def loadings_of(kind: str) -> dict[str, dict[str, float]]:
    """Return channels, signs, conditions or outcomes: their weights of LATENTS, and their distribution.

    >>> loadings_of("outcome")["death"]["severity"]
    0.8
    """
    table = pl.read_csv(RESOURCES / "synthetic_loadings.csv", comment_prefix="#", glob=False)
    rows = table.filter(pl.col("kind") == kind).drop("kind").iter_rows(named=True)
    return {row.pop("name"): row for row in rows}


def draw_latents(rng: Generator, count: int, patient: np.ndarray | None = None) -> np.ndarray:
    """Draw latent states [count, 6], N(0, 1), correlated with severity and those of the `patient`."""
    noise = rng.standard_normal((count, len(LATENTS)))
    independent = np.sqrt(1 - SEVERITY_CORRELATION**2) * noise * (SEVERITY_CORRELATION < 1)
    latents: np.ndarray = SEVERITY_CORRELATION * noise[:, :1] + independent
    if patient is not None:
        latents = np.sqrt(PATIENT_VARIANCE) * patient + np.sqrt(1 - PATIENT_VARIANCE) * latents
    return latents


def liability(latents: np.ndarray, loadings: Loadings) -> np.ndarray:
    """Return a weighted sum of latent states [n, 6] -> [n], with mean 0 and variance 1."""
    covariance = np.outer(SEVERITY_CORRELATION, SEVERITY_CORRELATION)
    np.fill_diagonal(covariance, 1)
    weight = np.array([loadings[name] for name in LATENTS])
    return np.asarray(latents @ weight / np.sqrt(weight @ covariance @ weight))


def draw_outcome(
    rng: Generator, latents: np.ndarray, loadings: Loadings, rate: float, explained: float
) -> np.ndarray:
    """Draw a binary outcome [n] of mean `rate`; latent states explain `explained` of its liability."""
    chance = rng.standard_normal(len(latents))
    total: np.ndarray = np.sqrt(explained) * liability(latents, loadings) + np.sqrt(1 - explained) * chance
    return total > NormalDist().inv_cdf(1 - rate)
