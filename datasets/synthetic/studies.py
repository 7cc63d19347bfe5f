"""Synthetic X-ray studies: their times and views, the signs that they show, and the reader's findings."""

import hashlib
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
import polars as pl
from numpy.random import Generator

from datasets.schema import FINDINGS
from datasets.synthetic.common import DAY, HOUR, STUDIES, random_stream, scatter_ids
from datasets.synthetic.config import MAX_STUDIES
from datasets.synthetic.frames import with_row_number
from datasets.synthetic.images import SIGNS, xray_size
from datasets.synthetic.latents import liability, loadings_of
from datasets.synthetic.patients import Block

# Finding -> the sign that the reader sees, and its prevalence ("No Finding" follows from the others).
READINGS = {
    "Atelectasis": ("atelectasis", 0.30), "Cardiomegaly": ("heart", 0.28),
    "Consolidation": ("consolidation", 0.10), "Edema": ("oedema", 0.28),
    "Enlarged Cardiomediastinum": ("heart", 0.06), "Fracture": ("other", 0.04),
    "Lung Lesion": ("lesion", 0.05), "Lung Opacity": ("consolidation", 0.35),
    "Pleural Effusion": ("effusion", 0.36), "Pleural Other": ("effusion", 0.03),
    "Pneumonia": ("consolidation", 0.16), "Pneumothorax": ("pneumothorax", 0.07),
    "Support Devices": ("devices", 0.55),
}  # fmt: skip
NO_IMAGE = "-"
VIEW_NAMES = {"AP": "antero-posterior", "PA": "postero-anterior", "LATERAL": "lateral", "LL": "left lateral"}


@dataclass(frozen=True)
class Studies:
    """Studies of a block and their images; a study is `labelled` if it has findings."""

    studies: pl.DataFrame  # patient, subject_id, study_id, time, standing (PA, not AP), labelled
    signs: np.ndarray  # scores [studies, len(SIGNS)]
    images: pl.DataFrame  # study (row), number (within the study), dicom_id, view, rows, columns


def draw_studies(seed: int, block: int, simulated: Block, paired: float, side: int) -> Studies:
    """Draw a block's X-ray studies: a share `paired` of the stays has a labelled AP image within the stay."""
    rng = random_stream(seed, block, STUDIES)
    times = _draw_times(rng, simulated, paired).sort("patient", "time", maintain_order=True)
    times = times.with_columns(number=pl.int_range(pl.len()).over("patient"))
    patients = simulated.patients.select("patient", "index", "subject_id")
    studies = times.filter(pl.col("number") < MAX_STUDIES)
    studies = studies.join(patients, on="patient", how="left", maintain_order="left")
    numbers = studies["index"].to_numpy() * MAX_STUDIES + studies["number"].to_numpy()
    studies = studies.with_columns(study_id=pl.Series(scatter_ids(50_000_000, numbers)))
    signs = _draw_signs(rng, studies, simulated)
    return Studies(studies, signs, _draw_images(rng, studies, side))


def _draw_times(rng: Generator, simulated: Block, paired: float) -> pl.DataFrame:
    """Draw when studies were taken: patient, admission, time (s), standing and labelled."""
    stays, count = simulated.stays, len(simulated.stays)
    begin, end = stays["intime"].to_numpy(), stays["outtime"].to_numpy()
    length, draw = end - begin, rng.random((count, 8))
    is_paired = draw[:, 0] < paired
    repeats = np.where(is_paired, np.minimum(rng.poisson(0.4 * length / DAY), 7), 0)
    days_before = np.exp(rng.normal(5, 1, count)).clip(31, 900)
    is_first, is_last = stays["admission"].is_first_distinct(), stays["admission"].is_last_distinct()
    first = np.flatnonzero(is_paired)
    again = np.repeat(np.arange(count), repeats)
    standing = np.flatnonzero(draw[:, 2] < 0.10)
    unlabelled = np.flatnonzero(~is_paired & (draw[:, 4] < 0.05))
    before = np.flatnonzero(is_first.to_numpy() & (draw[:, 5] < 0.25))
    after = np.flatnonzero(is_last.to_numpy() & (draw[:, 6] < 0.15))
    long_before = np.flatnonzero(draw[:, 7] < 0.1)
    groups = (  # stays, time, probability of standing, probability of a label
        (first, begin[first] + draw[first, 1] * np.minimum(length[first], DAY), 0.0, 1.0),
        (again, begin[again] + rng.random(len(again)) * length[again], 0.0, 0.97),
        (standing, begin[standing] + draw[standing, 3] * length[standing], 1.0, 0.97),
        (unlabelled, begin[unlabelled] + draw[unlabelled, 3] * length[unlabelled], 0.0, 0.0),
        (before, begin[before] - (0.3 + 20 * draw[before, 1]) * HOUR, 0.4, 0.95),
        (after, end[after] + (0.3 + 90 * draw[after, 3]) * HOUR, 0.6, 0.95),
        (long_before, begin[long_before] - days_before[long_before] * DAY, 0.9, 0.95),
    )
    frames = [_times_of(rng, stays[rows], *group) for rows, *group in groups]
    times = pl.concat([*frames, _times_without_stay(rng, simulated)])
    death = simulated.course.death[times["admission"].to_numpy()]
    return times.filter(pl.Series(times["time"].to_numpy() <= death))


def _times_of(
    rng: Generator, stays: pl.DataFrame, time: np.ndarray, standing: float, labelled: float
) -> pl.DataFrame:
    """Draw a study of each of the `stays` [k] at `time` [k]."""
    chance = rng.random((2, len(stays)))
    return stays.select(
        "patient", "admission", pl.Series("time", time.astype(np.int64)),
        pl.Series("standing", chance[0] < standing), pl.Series("labelled", chance[1] < labelled),
    )  # fmt: skip


def _times_without_stay(rng: Generator, simulated: Block) -> pl.DataFrame:
    """Draw one study of each admission without an ICU stay."""
    rest = with_row_number(simulated.admissions, "admission").join(
        simulated.stays, on="admission", how="anti"
    )
    delay = pl.Series(rng.integers(0, 2 * DAY, len(rest)))
    return rest.select(
        "patient", "admission", (pl.col("admittime") + delay).alias("time"),
        pl.Series("standing", rng.random(len(rest)) < 0.6), pl.lit(True).alias("labelled"),
    )  # fmt: skip


def _draw_signs(rng: Generator, studies: pl.DataFrame, simulated: Block) -> np.ndarray:
    """Draw scores of SIGNS [n, 10]: latent states at the time of each study and an error, or chance alone."""
    states = simulated.course.at(studies["admission"].to_numpy(), studies["time"].to_numpy())
    signs = rng.standard_normal((len(studies), len(SIGNS)))
    for name, loadings in loadings_of("sign").items():
        column = SIGNS.index(name)
        signs[:, column] *= simulated.course.simulation.image_error
        signs[:, column] += liability(states, loadings)
    return signs


def _draw_images(rng: Generator, studies: pl.DataFrame, side: int) -> pl.DataFrame:
    """Draw one to three images per study: AP once or twice, or PA and lateral; a few views are missing."""
    draw, standing = rng.random((len(studies), 4)), studies["standing"].to_numpy()
    first = np.where(standing, "PA", "AP")
    lateral = np.where(draw[:, 0] < 0.85, "LATERAL", "LL")
    second = np.where(standing, lateral, np.where(draw[:, 0] < 0.15, "AP", NO_IMAGE))
    missing = np.where(draw[:, 1] > 0.98, "", NO_IMAGE)
    third = np.where(~standing & (draw[:, 1] < 0.04), "LATERAL", missing)
    views = np.stack([first, second, third], axis=1)
    row, number = np.nonzero(views != NO_IMAGE)
    portrait = draw[row, 2] < 0.6
    sizes = np.array([xray_size(side, upright) for upright in (False, True)])[portrait.astype(int)]
    study_ids = studies["study_id"].gather(row)
    ids = [_dicom_id(study, n) for study, n in zip(study_ids, number.tolist(), strict=True)]
    return pl.DataFrame(
        {
            "study": row, "number": number, "dicom_id": pl.Series(ids, dtype=pl.String),
            "view": views[row, number], "rows": sizes[:, 0], "columns": sizes[:, 1],
        }
    )  # fmt: skip


def _dicom_id(study_id: int, number: int) -> str:
    """Return five groups of eight hexadecimal digits, as the release names its images.

    >>> _dicom_id(50000032, 0)[:17]
    '780ac801-eed6041f'
    """
    digits = hashlib.sha1(f"{study_id}-{number}".encode(), usedforsecurity=False).hexdigest()
    return "-".join(digits[start : start + 8] for start in range(0, 40, 8))


def metadata_table(simulated: Studies) -> pl.DataFrame:
    """Return MIMIC-CXR-JPG's metadata, one row per image; StudyTime is a number without leading zeros."""
    studies = simulated.studies[simulated.images["study"]].select(
        "subject_id", "study_id", "time", "standing"
    )
    frame = pl.concat([studies, simulated.images], how="horizontal")
    time = pl.from_epoch("time", "s")
    clock = time.dt.hour().cast(pl.Int32) * 10000 + time.dt.minute().cast(pl.Int32) * 100 + time.dt.second()
    thousandths = pl.col("study_id") % 1000 / 1000
    name = pl.when("standing").then(pl.lit("CHEST (PA AND LAT)")).otherwise(pl.lit("CHEST (PORTABLE AP)"))
    return frame.select(
        "dicom_id", "subject_id", "study_id",
        name.alias("PerformedProcedureStepDescription"),
        pl.col("view").replace("", None).alias("ViewPosition"),
        pl.col("rows").alias("Rows"), pl.col("columns").alias("Columns"),
        time.dt.strftime("%Y%m%d").cast(pl.Int64).alias("StudyDate"),
        (clock + thousandths).round(3).alias("StudyTime"),
        name.alias("ProcedureCodeSequence_CodeMeaning"),
        pl.col("view").replace_strict(VIEW_NAMES, default=None).alias("ViewCodeSequence_CodeMeaning"),
        pl.when("standing").then(pl.lit("Erect")).alias("PatientOrientationCodeSequence_CodeMeaning"),
    )  # fmt: skip


def findings_table(seed: int, block: int, simulated: Studies, error: float) -> pl.DataFrame:
    """Return CheXpert's table: 1 present, 0 absent, -1 uncertain, else null; `error` in SDs of a sign."""
    rng = random_stream(seed, block, STUDIES, 1)
    values = np.full((len(simulated.studies), len(FINDINGS)), np.nan)
    for index, finding in enumerate(FINDINGS):
        if finding not in READINGS:
            continue
        sign, rate = READINGS[finding]
        perceived = simulated.signs[:, SIGNS.index(sign)] + error * rng.standard_normal(len(values))
        present = perceived > NormalDist().inv_cdf(1 - rate) * np.sqrt(1 + error**2)
        draw = rng.random(len(values))
        values[:, index] = np.where(present, np.where(draw < 0.08, -1, 1), np.where(draw < 0.2, 0, np.nan))
        values[:, index] = np.where(~present & (draw > 0.98), -1, values[:, index])
    no_finding = FINDINGS.index("No Finding")
    diseases = np.delete(values, [no_finding, FINDINGS.index("Support Devices")], axis=1)
    values[~np.isin(diseases, (1, -1)).any(axis=1), no_finding] = 1
    labels = pl.DataFrame(values, schema=list(FINDINGS), orient="row").fill_nan(None)
    table = pl.concat(
        [simulated.studies.select("subject_id", "study_id", "labelled"), labels], how="horizontal"
    )
    return table.filter("labelled").drop("labelled")
