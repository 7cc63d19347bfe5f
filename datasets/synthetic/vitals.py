"""Vital signs and laboratory values over time: what the latent states cause, and nuisances that hide it."""

from dataclasses import dataclass
from typing import Self

import numpy as np

from datasets.synthetic.common import random_stream
from datasets.synthetic.latents import LATENTS, Course, loadings_of

NUISANCE_FACTORS = 3


@dataclass(frozen=True)
class Moments:
    """Times when something may be charted: row of the stay or admission [n], and seconds since 1970 [n]."""

    owner: np.ndarray
    time: np.ndarray

    @classmethod
    def between(cls, begin: np.ndarray, end: np.ndarray, step: int) -> Self:
        """Return the multiples of `step` seconds from `begin` [m] to `end` [m], one owner after the other.

        >>> Moments.between(np.array([10, 0]), np.array([7200, 100]), 3600)
        Moments(owner=array([0, 0, 1]), time=array([3600, 7200,    0]))
        """
        first = -(-begin // step)
        count = np.maximum(end // step - first + 1, 0)
        owner = np.repeat(np.arange(len(begin)), count)
        return cls(owner, (first[owner] + _index_within(count)) * step)


def _index_within(counts: np.ndarray) -> np.ndarray:
    """Return 0, 1, ... for each of consecutive groups of some sizes."""
    index: np.ndarray = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
    return index


def draw_scores(
    rng: np.random.Generator, moments: Moments, patient: np.ndarray, states: np.ndarray, course: Course
) -> np.ndarray:
    """Draw channels in standard deviations [n, C] at n moments, from latent states [n, 6] and nuisances.

    `patient` [m] is the patient of each owner. The nuisances are the patient's own level of each channel,
    factors of a stay that move many channels at once, and noise that is correlated over time.
    """
    simulation = course.simulation
    loadings = np.array([[channel[name] for name in LATENTS] for channel in loadings_of("channel").values()])
    channels, owners = len(loadings), len(patient)
    baseline = rng.standard_normal((patient.max() + 1, channels))[patient]
    directions = random_stream(0, channels).standard_normal((NUISANCE_FACTORS, channels))
    factors = rng.standard_normal((owners, NUISANCE_FACTORS)) @ (directions / np.sqrt(NUISANCE_FACTORS))
    level = simulation.vitals_baseline * baseline + simulation.vitals_private * factors
    noise = simulation.vitals_noise * _draw_noise(rng, moments, (owners, channels), simulation.vitals_memory)
    total = simulation.vitals_signal * states @ loadings.T + level[moments.owner] + noise
    nuisances = (simulation.vitals_baseline, simulation.vitals_private, simulation.vitals_noise)
    spread = np.sqrt(simulation.vitals_signal**2 + np.square(nuisances).sum())
    scores: np.ndarray = total / spread  # with a standard deviation near 1 whatever the settings
    return scores


def _draw_noise(
    rng: np.random.Generator, moments: Moments, shape: tuple[int, int], memory: float
) -> np.ndarray:
    """Draw first-order autoregressive noise [n, C] of variance 1 along the moments of each owner."""
    owners, channels = shape
    count = np.bincount(moments.owner, minlength=owners)
    index = _index_within(count)
    drawn = rng.standard_normal((len(moments.owner), channels), dtype=np.float32)
    padded = np.zeros((int(count.max(initial=0)), owners, channels), dtype=np.float32)
    padded[index, moments.owner] = drawn
    innovation = np.float32(np.sqrt(1 - memory**2))
    for step in range(1, len(padded)):
        padded[step] = np.float32(memory) * padded[step - 1] + innovation * padded[step]
    noise: np.ndarray = padded[index, moments.owner]
    return noise


def channel_values(scores: np.ndarray) -> dict[str, np.ndarray]:
    """Return channels in their units [n] by name, with those derived from others, from scores [n, C]."""
    values = {}
    for score, (name, channel) in zip(scores.T, loadings_of("channel").items(), strict=True):
        values[name] = np.clip(channel["mean"] + channel["sd"] * score, channel["low"], channel["high"])
    values["diastolic"] = np.maximum(values["mean_pressure"] - values["pulse_pressure"] / 3, 15)
    values["systolic"] = values["diastolic"] + values["pulse_pressure"]
    values["fahrenheit"] = values["temperature"] * 1.8 + 32
    values["oxygen_percent"] = values["oxygen_fraction"] * 100
    return values


def draw_body(
    rng: np.random.Generator, patients: int, heart_failure: np.ndarray, patient: np.ndarray
) -> dict[str, np.ndarray]:
    """Draw height and weight of each stay [m] in both units; heart failure adds the weight of water."""
    height = rng.normal(170, 10, patients).clip(140, 205)[patient]
    weight = (rng.normal(81, 18, patients)[patient] + 3 * heart_failure).clip(38, 220)
    return {"height": height, "inches": height / 2.54, "weight": weight, "pounds": weight / 0.453592}


def draw_groups(rng: np.random.Generator, states: np.ndarray) -> dict[str, np.ndarray]:
    """Draw which stays [m] have an arterial line, a ventilator and so on, from their first states [m, 6]."""
    draw = rng.random((len(states), 5))
    line = draw[:, 0] < 1 / (1 + np.exp(0.5 - 0.6 * states[:, 0]))
    ventilated = draw[:, 1] < 1 / (1 + np.exp(0.8 - 0.6 * states[:, 0] - 0.4 * states[:, 2]))
    celsius = draw[:, 2] < 0.12
    fraction = draw[:, 3] < 0.08
    return {
        "all": np.ones(len(states), dtype=bool), "line": line, "cuff": ~line, "ventilated": ventilated,
        "breathing": ~ventilated, "celsius": celsius, "fahrenheit": ~celsius,
        "fraction": ventilated & fraction, "percent": ventilated & ~fraction,
        "diabetic": draw[:, 4] < 1 / (1 + np.exp(0.6 - 0.8 * states[:, 5])),
    }  # fmt: skip
