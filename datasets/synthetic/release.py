"""Write synthetic MIMIC-IV and MIMIC-CXR-JPG folders, or synthetic X-rays for real stays."""

from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import polars as pl
from tqdm import tqdm

from datasets.cxr import image_path
from datasets.synthetic.common import to_datetimes
from datasets.synthetic.diagnoses import draw_diagnoses
from datasets.synthetic.events import draw_charts, draw_labs
from datasets.synthetic.images import XRay
from datasets.synthetic.items import item_tables
from datasets.synthetic.latents import Simulation
from datasets.synthetic.output import CXRWriter, TableWriter, atomic_folders, open_cxr, open_tables
from datasets.synthetic.patients import MAX_PATIENTS, PATIENTS_PER_BLOCK, Block, draw_block
from datasets.synthetic.real_stays import block_of_stays, read_stays
from datasets.synthetic.studies import Studies, draw_studies, findings_table, metadata_table

NOTICE = "Synthetic data made by `python -m datasets.synthetic`: no record here is of a real patient.\n"
XRAY_NOTICE = "Synthetic X-rays made by `python -m datasets.synthetic` for real stays: no finding is real.\n"
IV, CXR = "mimic-iv", "mimic-cxr-jpg"
METADATA, CHEXPERT = "mimic-cxr-2.0.0-metadata", "mimic-cxr-2.0.0-chexpert"
SMALLEST_SIDE, LARGEST_SIDE = 64, 4096  # pixels
BLOCKS = f" x {PATIENTS_PER_BLOCK}"  # unit of the progress bar


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


def write_mimic_iv(tables: TableWriter, seed: int, block: int, drawn: Block, subjects: list[int]) -> None:
    """Append the MIMIC-IV 2.2 tables of some subjects of a block."""
    selected = pl.col("subject_id").is_in(subjects)
    patients = drawn.patients.with_columns(dod=pl.from_epoch("dod", "s").cast(pl.Date)).select(
        "subject_id", "gender", "anchor_age", "anchor_year", "anchor_year_group", "dod"
    )
    times = ("admittime", "dischtime", "deathtime", "edregtime", "edouttime")
    admissions = to_datetimes(drawn.admissions, times).select(
        "subject_id", "hadm_id", "admittime", "dischtime", "deathtime", "admission_type",
        "admit_provider_id", "admission_location", "discharge_location", "insurance", "language",
        "marital_status", "race", "edregtime", "edouttime", "hospital_expire_flag",
    )  # fmt: skip
    icustays = to_datetimes(drawn.stays, ("intime", "outtime")).select(
        "subject_id", "hadm_id", "stay_id", "first_careunit", "last_careunit", "intime", "outtime", "los"
    )
    tables.append("hosp/patients", patients.filter(selected))
    tables.append("hosp/admissions", admissions.filter(selected))
    tables.append("icu/icustays", icustays.filter(selected))
    tables.append("hosp/diagnoses_icd", draw_diagnoses(seed, block, drawn).filter(selected))
    tables.append("hosp/labevents", draw_labs(seed, block, drawn).filter(selected))
    tables.append("icu/chartevents", draw_charts(seed, block, drawn).filter(selected))


def write_mimic_cxr(
    cxr: CXRWriter, config: SyntheticConfig, block: int, drawn: Block, subjects: list[int]
) -> None:
    """Append the MIMIC-CXR-JPG 2.0.0 tables of some subjects of a block, and write their images."""
    selected = pl.col("subject_id").is_in(subjects)
    studies = draw_studies(config.seed, block, drawn, config.paired, config.image_size)
    error = drawn.course.simulation.finding_error
    cxr.tables.append(METADATA, metadata_table(studies).filter(selected))
    cxr.tables.append(CHEXPERT, findings_table(config.seed, block, studies, error).filter(selected))
    cxr.write_xrays(*_xrays_of(studies, set(subjects), cxr.tables.root))


def _xrays_of(drawn: Studies, subjects: set[int], root: Path) -> tuple[list[XRay], list[Path]]:
    """Return the X-rays of some subjects, and the path of each."""
    ids = drawn.studies.select("subject_id", "study_id")
    xrays, paths = [], []
    for study, number, dicom_id, view, rows, columns in drawn.images.iter_rows():
        subject_id, study_id = ids.row(study)
        if subject_id in subjects:
            xrays.append(XRay(subject_id, study_id, number, view, rows, columns, drawn.signs[study]))
            paths.append(image_path(root, subject_id, study_id, dicom_id))
    return xrays, paths


def write_synthetic(config: SyntheticConfig, simulation: Simulation) -> None:
    """Write synthetic patients as `out/mimic-iv` and, with images, `out/mimic-cxr-jpg`; all or nothing.

    One block of patients is drawn and written at a time, so that memory does not grow with their number.

    Raises:
        ValueError: One of the folders exists.
    """
    names = (IV, CXR) if config.images else (IV,)
    blocks = range(-(-config.patients // PATIENTS_PER_BLOCK))
    with ExitStack() as stack:
        folder = stack.enter_context(atomic_folders(config.out, names))
        iv_tables = stack.enter_context(open_tables(folder / IV, NOTICE))
        if config.images:
            cxr = open_cxr(folder / CXR, NOTICE, config.seed, simulation, config.workers)
            cxr_writer = stack.enter_context(cxr)
        for name, table in zip(("icu/d_items", "hosp/d_labitems"), item_tables(), strict=True):
            iv_tables.append(name, table)
        for block in tqdm(blocks, desc="patients", unit=BLOCKS, disable=None):
            drawn = draw_block(config.seed, block, simulation)
            remaining = config.patients - block * PATIENTS_PER_BLOCK
            subjects = drawn.patients["subject_id"].to_list()[:remaining]
            write_mimic_iv(iv_tables, config.seed, block, drawn, subjects)
            if config.images:
                write_mimic_cxr(cxr_writer, config, block, drawn, subjects)


def write_xrays_for_stays(config: SyntheticConfig, source: Path, simulation: Simulation) -> None:
    """Write synthetic X-rays for the real stays of `source` as `out/mimic-cxr-jpg`; all or nothing.

    They let every step run, but mean nothing clinically: latent states are chance, except that severity is
    higher in patients who died in hospital.

    Raises:
        ValueError: The folder exists, or `source` has no stays that can be read.
    """
    stays = read_stays(source)
    subjects = stays["subject_id"].unique().sort()
    starts = range(0, len(subjects), PATIENTS_PER_BLOCK)
    with (
        atomic_folders(config.out, (CXR,)) as folder,
        open_cxr(folder / CXR, XRAY_NOTICE, config.seed, simulation, config.workers) as cxr,
    ):
        for block, start in enumerate(tqdm(starts, desc="patients", unit=BLOCKS, disable=None)):
            members = subjects[start : start + PATIENTS_PER_BLOCK]
            drawn = block_of_stays(config.seed, block, stays, members, simulation)
            write_mimic_cxr(cxr, config, block, drawn, members.to_list())


def main(config: SyntheticConfig) -> None:
    """Write what the flags select and print where it is."""
    if config.for_stays:
        write_xrays_for_stays(config, config.for_stays, Simulation())
        names = [CXR]
    else:
        write_synthetic(config, Simulation())
        names = [IV, CXR] if config.images else [IV]
    print("wrote", " and ".join(str(config.out / name) for name in names))
