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
from datasets.synthetic.simulation import Simulation

LATENTS = ("severity", "heart_failure", "consolidation", "effusion", "renal", "chronic")
SEVERITY_CORRELATION = np.array([1.0, 0.45, 0.4, 0.4, 0.4, 0.15])  # of each latent state with severity
PATIENT_VARIANCE = np.array([0.2, 0.5, 0.1, 0.3, 0.6, 0.9])  # the part that a patient's admissions share
Loadings = Mapping[str, float]  # weight of each of LATENTS
NO_DEATH = np.iinfo(np.int64).max  # time of death of a patient who survives the admission


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
