"""The settings of an extraction."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from datasets.schema import IMAGE_SIZE, SMALLEST_SIDE, LabTime

LARGEST_CACHE = 4096  # shorter side of a stored X-ray in pixels


@dataclass(frozen=True)
class ExtractConfig:
    """Read MIMIC-IV or MEDS (and MIMIC-CXR-JPG), select the stays, and write a store for training."""

    mimic_iv: Path | None = None
    """Folder of a MIMIC-IV release (1.0, 2.x or 3.x): the one that holds hosp/ and icu/, tables as .csv.gz,
    .csv or .parquet, whole or in shards."""
    out: Path = Path("data/mimic")
    """Folder of the store to write. Run the same command again to go on after an interruption."""
    mimic_cxr: Path | None = None
    """Folder of MIMIC-CXR-JPG (2.0.0 or 2.1.0): metadata and chexpert tables, and files/. Without it: no
    X-rays."""
    protocol: Literal["medmod", "corrected"] = "medmod"
    """`medmod`: the published variables and labels, to compare with papers; `corrected`: their defects
    repaired."""
    timestep: float = 1.0
    """Hours in a bin of the grid."""
    views: tuple[str, ...] = ("AP",)
    """View positions of the X-rays to use, such as AP PA."""
    image_cache: int = IMAGE_SIZE
    """Shorter side of the stored X-rays in pixels, such as 256, 384 or 518; their shape is kept. Views of
    more pixels than that are blurred."""
    uncertain: Literal["zeros", "ones", "ignore"] = "zeros"
    """What CheXpert's uncertain findings (-1) count as in the radiology task; `ignore` leaves them out."""
    test_subjects: Path | None = None
    """Published list of test subjects (lines `subject_id,0|1`), or MIMIC-CXR's split table; goes with
    --val_subjects. Default: a stable hash."""
    val_subjects: Path | None = None
    """Published list of validation subjects, or the same split table. Other subjects are in train."""
    stays: Path | None = None
    """Your own cohort: a file with a stay_id on each line. Of the stays that pass the rules only these are
    kept; their labels are as in the whole cohort."""
    lab_time: LabTime | None = None
    """Time of a laboratory value: `charttime`, when the specimen was taken, as published and the default; or
    `storetime`, when the value was known. A MEDS dataset has one of them only."""
    meds: Path | None = None
    """Folder of a MEDS 0.4 dataset, with data/ and metadata/, in place of --mimic_iv."""
    meds_mapping: Path | None = None
    """YAML file that says what the codes of --meds mean. Default: one of those for MIMIC_IV_MEDS, which is
    found by a look at the codes."""

    def __post_init__(self) -> None:
        if (self.mimic_iv is None) == (self.meds is None):
            raise ValueError("give one of --mimic_iv and --meds, the folder to read")
        if self.meds is None and self.meds_mapping is not None:
            raise ValueError("--meds_mapping is for --meds; leave it out")
        views = [view.strip().upper() for word in self.views for view in word.split(",")]
        if not all(views):
            raise ValueError("--views needs the names of views, such as --views AP PA")
        object.__setattr__(self, "views", tuple(dict.fromkeys(views)))
        if not SMALLEST_SIDE <= self.image_cache <= LARGEST_CACHE:
            allowed = f"{SMALLEST_SIDE} to {LARGEST_CACHE} pixels"
            raise ValueError(f"--image_cache must be {allowed}, not {self.image_cache}")
