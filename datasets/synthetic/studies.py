"""Synthetic X-ray studies: when they were taken, in which views, what they show and what the reader said."""

import hashlib
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
import polars as pl

from datasets.schema import FINDINGS
from datasets.synthetic.images import SIGNS, film_size
from datasets.synthetic.patients import (
    DAY,
    HOUR,
    MAX_STUDIES,
    STUDIES,
    Block,
    liability,
    numbered,
    spread,
    stream,
)

# Weights of (severity, heart failure, consolidation, effusion, renal, chronic) in the signs that films show;
# other signs are chance. The kidney does not show, and effusion shows hardly anywhere else.
SIGN_WEIGHTS = {
    "heart": (0.0, 0.9, 0.0, 0.1, 0.1, 0.4), "oedema": (0.3, 1.0, 0.0, 0.1, 0.1, 0.0),
    "consolidation": (0.15, 0.0, 1.0, 0.0, 0.0, 0.0), "effusion": (0.0, 0.2, 0.1, 1.0, 0.0, 0.0),
    "devices": (1.0, 0.0, 0.1, 0.1, 0.0, 0.0), "chronic": (0.0, 0.0, 0.1, 0.0, 0.0, 1.0),
    "atelectasis": (1.0, 0.0, 0.1, 0.2, 0.0, 0.0),
}  # fmt: skip
# Finding: the sign that the reader saw, and how often it is there ("No Finding" follows from the others).
READINGS = {
    "Atelectasis": ("atelectasis", 0.30), "Cardiomegaly": ("heart", 0.28),
    "Consolidation": ("consolidation", 0.10), "Edema": ("oedema", 0.28),
    "Enlarged Cardiomediastinum": ("heart", 0.06), "Fracture": ("other", 0.04),
    "Lung Lesion": ("lesion", 0.05), "Lung Opacity": ("consolidation", 0.35),
    "Pleural Effusion": ("effusion", 0.36), "Pleural Other": ("effusion", 0.03),
    "Pneumonia": ("consolidation", 0.16), "Pneumothorax": ("pneumothorax", 0.07),
    "Support Devices": ("devices", 0.55),
}  # fmt: skip
VIEW_NAMES = {"AP": "antero-posterior", "PA": "postero-anterior", "LATERAL": "lateral", "LL": "left lateral"}


@dataclass(frozen=True)
class Studies:
    """Studies of a block (patient, subject_id, study_id, time, standing, read), the scores of their `signs`
    [studies, len(SIGNS)] and their `images` (study, number, dicom_id, view, rows, columns).
    """

    studies: pl.DataFrame
    signs: np.ndarray
    images: pl.DataFrame


def draw_studies(seed: int, block: int, drawn: Block, paired: float, side: int) -> Studies:
    """The X-ray studies of a block's patients, in and around their ICU stays.

    A share `paired` of the stays has an AP film within it that a reader has labelled. `side` is the films'
    shorter side in pixels.
    """
    rng = stream(seed, block, STUDIES)
    times = _study_times(rng, drawn, paired)
    number = pl.int_range(pl.len()).over("patient")
    times = times.sort("patient", "time", maintain_order=True).with_columns(number=number)
    times = times.filter(pl.col("number") < MAX_STUDIES).join(
        drawn.patients.select("patient", "index", "subject_id"),
        on="patient",
        how="left",
        maintain_order="left",
    )
    place = times["index"].to_numpy() * MAX_STUDIES + times["number"].to_numpy()
    studies = times.with_columns(study_id=pl.Series(spread(50_000_000, place)))
    signs = _draw_signs(rng, studies, drawn)
    return Studies(studies, signs, _draw_images(rng, studies, side))


def _study_times(rng: np.random.Generator, drawn: Block, paired: float) -> pl.DataFrame:
    """When studies were taken: patient, admission, time (s), standing (PA, not AP), read (has findings)."""
    stays, count = drawn.stays, len(drawn.stays)
    begin, end = stays["intime"].to_numpy(), stays["outtime"].to_numpy()
    length, draw = end - begin, rng.random((count, 8))
    has_film = draw[:, 0] < paired
    more = np.where(has_film, np.minimum(rng.poisson(0.4 * length / DAY), 7), 0)
    days_off = np.exp(rng.normal(5, 1, count)).clip(31, 900)
    again = np.repeat(np.arange(count), more)
    unread = ~has_film & (draw[:, 4] < 0.05)
    earliest, latest = stays["admission"].is_first_distinct(), stays["admission"].is_last_distinct()
    masks = (
        has_film, draw[:, 2] < 0.10, unread,
        earliest.to_numpy() & (draw[:, 5] < 0.25), latest.to_numpy() & (draw[:, 6] < 0.15), draw[:, 7] < 0.1,
    )  # fmt: skip
    first, erect, silent, before, after, far = (np.flatnonzero(mask) for mask in masks)
    groups = (  # stays, time, chance of a standing film, chance that it was read
        (first, begin[first] + draw[first, 1] * np.minimum(length[first], DAY), 0.0, 1.0),
        (again, begin[again] + rng.random(len(again)) * length[again], 0.0, 0.97),
        (erect, begin[erect] + draw[erect, 3] * length[erect], 1.0, 0.97),
        (silent, begin[silent] + draw[silent, 3] * length[silent], 0.0, 0.0),
        (before, begin[before] - (0.3 + 20 * draw[before, 1]) * HOUR, 0.4, 0.95),
        (after, end[after] + (0.3 + 90 * draw[after, 3]) * HOUR, 0.6, 0.95),
        (far, begin[far] - days_off[far] * DAY, 0.9, 0.95),
    )
    frames = [_times_of(rng, drawn, *group) for group in groups]
    times = pl.concat([*frames, _times_without_stay(rng, drawn)])
    return times.filter(
        pl.Series(times["time"].to_numpy() <= drawn.course.death[times["admission"].to_numpy()])
    )


def _times_of(
    rng: np.random.Generator, drawn: Block, rows: np.ndarray, time: np.ndarray, standing: float, read: float
) -> pl.DataFrame:
    """Studies of the stays `rows` [k] at `time` [k]."""
    chance = rng.random((2, len(rows)))
    return (
        drawn.stays[rows]
        .select("patient", "admission")
        .with_columns(
            time=pl.Series(time.astype(np.int64)),
            standing=pl.Series(chance[0] < standing),
            read=pl.Series(chance[1] < read),
        )
    )


def _times_without_stay(rng: np.random.Generator, drawn: Block) -> pl.DataFrame:
    """One study of each admission that never came to intensive care."""
    rest = numbered(drawn.admissions, "admission").join(drawn.stays, on="admission", how="anti")
    delay = pl.Series(rng.integers(0, 2 * DAY, len(rest)))
    return rest.select(
        "patient", "admission", (pl.col("admittime") + delay).alias("time"),
        pl.Series(rng.random(len(rest)) < 0.6).alias("standing"), pl.lit(True).alias("read"),
    )  # fmt: skip


def _draw_signs(rng: np.random.Generator, studies: pl.DataFrame, drawn: Block) -> np.ndarray:
    """Scores of SIGNS [n, 10]: the hidden states at the time of each study, and an error of its own."""
    states = drawn.course.at(studies["admission"].to_numpy(), studies["time"].to_numpy())
    luck, strengths = rng.standard_normal((len(studies), len(SIGNS))), drawn.course.strengths
    for place, sign in enumerate(SIGNS):
        if sign in SIGN_WEIGHTS:
            luck[:, place] *= strengths.image_error
            luck[:, place] += liability(states, SIGN_WEIGHTS[sign], strengths)
    return luck


def _draw_images(rng: np.random.Generator, studies: pl.DataFrame, side: int) -> pl.DataFrame:
    """One to three images a study: AP alone or twice, PA with a lateral; a few views are not recorded."""
    draw, standing = rng.random((len(studies), 4)), studies["standing"].to_numpy()
    side_view, again = np.where(draw[:, 0] < 0.85, "LATERAL", "LL"), np.where(draw[:, 0] < 0.15, "AP", "-")
    third = np.where(~standing & (draw[:, 1] < 0.04), "LATERAL", np.where(draw[:, 1] > 0.98, "", "-"))
    table = np.stack([np.where(standing, "PA", "AP"), np.where(standing, side_view, again), third], axis=1)
    row, number = np.nonzero(table != "-")
    portrait = draw[row, 2] < 0.6
    sizes = np.array([film_size(side, upright) for upright in (False, True)])[portrait.astype(int)]
    ids = [_dicom_id(study, n) for study, n in zip(studies["study_id"].gather(row), number, strict=True)]
    return pl.DataFrame(
        {
            "study": row, "number": number, "dicom_id": pl.Series(ids, dtype=pl.String),
            "view": table[row, number], "rows": sizes[:, 0], "columns": sizes[:, 1],
        }
    )  # fmt: skip


def _dicom_id(study_id: int, number: int) -> str:
    """Five groups of eight hexadecimal digits, as the release names its images.

    >>> _dicom_id(50000032, 0)[:17]
    '780ac801-eed6041f'
    """
    digits = hashlib.sha1(f"{study_id}-{number}".encode(), usedforsecurity=False).hexdigest()
    return "-".join(digits[start : start + 8] for start in range(0, 40, 8))


def metadata_table(drawn: Studies) -> pl.DataFrame:
    """MIMIC-CXR-JPG's metadata: a row an image; StudyTime is a number that lost its leading zeros."""
    studies = drawn.studies[drawn.images["study"]].select("subject_id", "study_id", "time", "standing")
    frame = pl.concat([studies, drawn.images], how="horizontal")
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


def findings_table(seed: int, block: int, drawn: Studies, error: float) -> pl.DataFrame:
    """CheXpert's labels of the studies that were read: 1 present, 0 absent, -1 uncertain, empty unmentioned.

    `error` is the reader's own, in standard deviations of a sign.
    """
    rng = stream(seed, block, STUDIES, 1)
    values = np.full((len(drawn.studies), len(FINDINGS)), np.nan)
    for place, finding in enumerate(FINDINGS):
        if finding not in READINGS:
            continue
        sign, rate = READINGS[finding]
        seen = drawn.signs[:, SIGNS.index(sign)] + error * rng.standard_normal(len(values))
        present = seen > NormalDist().inv_cdf(1 - rate) * np.sqrt(1 + error**2)
        draw = rng.random(len(values))
        values[:, place] = np.where(present, np.where(draw < 0.08, -1, 1), np.where(draw < 0.2, 0, np.nan))
        values[:, place] = np.where(~present & (draw > 0.98), -1, values[:, place])
    mentioned = np.delete(values, [FINDINGS.index("No Finding"), FINDINGS.index("Support Devices")], axis=1)
    values[~np.isin(mentioned, (1, -1)).any(axis=1), FINDINGS.index("No Finding")] = 1
    labels = pl.DataFrame(values, schema=list(FINDINGS), orient="row").fill_nan(None)
    table = pl.concat([drawn.studies.select("subject_id", "study_id", "read"), labels], how="horizontal")
    return table.filter("read").drop("read")
