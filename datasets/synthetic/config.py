"""The settings of a synthetic release."""

from dataclasses import dataclass
from pathlib import Path

MAX_STUDIES = 128  # of a patient
MAX_PATIENTS = 10_000_000 // MAX_STUDIES  # as many as there are study ids for
SMALLEST_SIDE, LARGEST_SIDE = 64, 4096  # pixels


@dataclass(frozen=True)
class SyntheticConfig:
    """Write synthetic MIMIC-IV and MIMIC-CXR-JPG folders, or synthetic X-rays for real stays."""

    out: Path
    """Folder that gets `mimic-iv` and `mimic-cxr-jpg`; neither may exist yet."""
    patients: int = 1000
    """Number of patients; the first n are the same whatever the number."""
    seed: int = 0
    """Seed of everything that is drawn."""
    image_size: int = 512
    """Shorter side of the X-rays in pixels; the longer one is 1.2 times as long."""
    images: bool = True
    """Whether to write X-rays and their tables."""
    paired: float = 0.6
    """Fraction of the ICU stays with an AP X-ray within the stay (about 0.2 in the real releases)."""
    for_stays: Path | None = None
    """A raw MIMIC-IV folder or a finished store: write only X-rays, for its stays (ignores --patients)."""
    workers: int = 1
    """Processes that draw images; 0 starts one per core."""

    def __post_init__(self) -> None:
        if not 1 <= self.patients <= MAX_PATIENTS:
            raise ValueError(f"--patients must be 1 to {MAX_PATIENTS}, not {self.patients}")
        if not 0 <= self.paired <= 1:
            raise ValueError(f"--paired must be a fraction from 0 to 1, not {self.paired}")
        if not SMALLEST_SIDE <= self.image_size <= LARGEST_SIDE:
            sides = f"{SMALLEST_SIDE} to {LARGEST_SIDE}"
            raise ValueError(f"--image_size must be {sides} pixels, not {self.image_size}")
        if self.seed < 0 or self.workers < 0:
            raise ValueError(f"--seed and --workers must be 0 or more, not {self.seed} and {self.workers}")
        if self.for_stays and not self.images:
            raise ValueError("--for_stays writes X-rays alone and --no-images none; give only one of them")
