"""How strongly the latent states of synthetic patients show, and how large all noise is."""

from dataclasses import dataclass


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
