"""Cohort of ICU stays: selection rules and outcomes."""

from dataclasses import dataclass
from pathlib import Path

import polars as pl

from datasets.deaths import (
    add_deaths,
    count_contradictions,
    deaths_of_subjects,
    has_died,
    is_after_death,
    mend_discharges,
)
from datasets.raw.reading import check_unique_ids
from datasets.splits import SubjectLists, split_subjects

READMISSION_DAYS = 30
LONGEST_STAY = 1000 * 24.0  # hours; a longer one is an error in its times
COUNTED_IDS = {"stays": "stay_id", "admissions": "hadm_id", "subjects": "subject_id"}


@dataclass(frozen=True)
class Cohort:
    """`stays`: one row per stay, by subject and time of ICU admission; `attrition`: one row per rule.

    `contradictions` counts the stays whose records of death do not agree; it has no row under `medmod`.
    """

    stays: pl.DataFrame
    attrition: pl.DataFrame
    contradictions: pl.DataFrame


def _count(stays: pl.DataFrame, rule: str) -> dict[str, str | int]:
    return {"rule": rule, **{name: stays[column].n_unique() for name, column in COUNTED_IDS.items()}}


def _hours_between(earlier: str, later: str) -> pl.Expr:
    return (pl.col(later) - pl.col(earlier)).dt.total_microseconds() / 3.6e9


def _has_length() -> pl.Expr:
    """Return whether LOS is a possible number of hours and, to the hour, the time from intime to outtime."""
    los = pl.col("los_hours")
    deviation = (los - _hours_between("intime", "outtime")).abs()
    return los.is_between(0, LONGEST_STAY, closed="right") & (deviation < 1)


def _is_within_admission(column: str) -> pl.Expr:
    return pl.col(column).is_between("admittime", "dischtime").fill_null(False)


def _add_published_outcomes(stays: pl.DataFrame) -> pl.DataFrame:
    """Add age, in-hospital mortality and the time of death as the published code does."""
    return stays.with_columns(
        age=pl.col("anchor_age"),
        mortality=(_is_within_admission("dod") | _is_within_admission("deathtime")).cast(pl.Int8),
        death_hours=_hours_between("intime", "deathtime"),
    )


def _age_at_intime() -> pl.Expr:
    age = pl.col("anchor_age") + pl.col("intime").dt.year() - pl.col("anchor_year")
    return age.cast(pl.Int64)


def _add_corrected_outcomes(stays: pl.DataFrame) -> pl.DataFrame:
    return add_deaths(stays).with_columns(age=_age_at_intime())


def add_readmission(stays: pl.DataFrame, candidates: pl.DataFrame, published: bool = False) -> pl.DataFrame:
    """Add `readmission`: whether one of the subject's `candidates` begins within 30 days of outtime.

    The published code asks for less than 30 days, and counts a later stay that begins before outtime.
    """
    pairs = stays.select("subject_id", "stay_id", "intime", "outtime").join(
        candidates.select("subject_id", other="stay_id", next="intime"), on="subject_id"
    )
    gap, most = pl.col("next") - pl.col("outtime"), pl.duration(days=READMISSION_DAYS)
    readmitted = pairs.filter(
        pl.col("other") != pl.col("stay_id"),
        pl.col("next") > pl.col("intime"),
        gap < most if published else gap.is_between(pl.duration(days=0), most),
    )["stay_id"].unique()
    return stays.with_columns(readmission=pl.col("stay_id").is_in(readmitted.implode()).cast(pl.Int8))


def read_stays(path: Path) -> frozenset[int]:
    """Read a list of ICU stays: a stay_id on each line; the first line may be the header `stay_id`.

    Raises:
        ValueError: A line is no stay_id, or the list is empty.
    """
    stays = set()
    for number, line in enumerate(path.read_text(encoding="utf-8-sig").splitlines(), 1):
        word = line.strip()
        if not word or (number == 1 and word == "stay_id"):
            continue
        if not (word.isascii() and word.isdecimal()):
            raise ValueError(f"{path}, line {number}: {word!r} is no stay_id; write one on each line")
        stays.add(int(word))
    if not stays:
        raise ValueError(f"{path} lists no stay; write a stay_id on each line")
    return frozenset(stays)


def select_stays(
    icustays: pl.DataFrame,
    admissions: pl.DataFrame,
    patients: pl.DataFrame,
    protocol: str,
    subject_lists: SubjectLists = (None, None),
    wanted: frozenset[int] | None = None,
    age_by_birth: bool = False,
) -> Cohort:
    """Apply the cohort rules in their order and count what is left after each.

    `subject_lists` are the published test and validation subjects, if any. `wanted` are the stay_id of the
    stays to keep of those that pass the rules (None: all); their labels and numbers are as in the whole.
    `age_by_birth` says that the anchor of `patients` is the year of birth, so that no published age is known.
    """
    check_unique_ids(icustays, ["stay_id"], "icustays")
    check_unique_ids(admissions, ["hadm_id"], "admissions")
    check_unique_ids(patients, ["subject_id"], "patients")
    attrition = [_count(icustays, "all ICU stays")]

    def count(rule: str, stays: pl.DataFrame) -> pl.DataFrame:
        attrition.append(_count(stays, rule))
        return stays

    is_corrected = protocol == "corrected"
    candidates = icustays
    if is_corrected:
        admissions = mend_discharges(admissions, icustays)
        deaths = deaths_of_subjects(admissions, patients)
        icustays = icustays.join(deaths, on="subject_id", how="left", maintain_order="left")
        candidates = icustays.filter(~is_after_death())
    stays = icustays.filter(pl.col("first_careunit") == pl.col("last_careunit"))
    stays = count("no transfer between units", stays)
    stays = stays.join(admissions.drop("subject_id"), on="hadm_id").join(patients, on="subject_id")
    stays = count("admission and patient known", stays)
    stays = count("one ICU stay in the admission", stays.filter(pl.len().over("hadm_id") == 1))
    stays = stays.with_columns(los_hours=24 * pl.col("los"))
    stays = _add_corrected_outcomes(stays) if is_corrected else _add_published_outcomes(stays)
    if age_by_birth:
        stays = stays.with_columns(age=_age_at_intime(), anchor_age=pl.lit(None, pl.Int64))
    stays = count("age 18 or more", stays.filter(pl.col("age") >= 18))
    if is_corrected:
        stays = count("alive at ICU admission", stays.filter(~is_after_death()))
    stays = count("length of stay known and positive", stays.filter(_has_length()))
    if stays.is_empty():
        counts = "; ".join(f"{step['rule']}: {step['stays']}" for step in attrition)
        cure = "mend the mapping of its codes (--meds_mapping)" if age_by_birth else "use a MIMIC-IV release"
        raise ValueError(
            f"the cohort is empty: none of {len(icustays)} icustays ({len(admissions)} admissions, "
            f"{len(patients)} patients) passes all rules (stays left: {counts}); {cure}"
        )
    stays = add_readmission(stays, candidates if is_corrected else stays, published=not is_corrected)
    if is_corrected:
        stays = stays.with_columns(readmission=pl.when(~has_died()).then("readmission"))
    stays = _number_episodes(stays)
    if wanted is not None:
        listed = stays.filter(pl.col("stay_id").is_in(list(wanted)))
        stays = count("in the list of --stays", listed)
        if stays.is_empty():
            raise ValueError(
                f"none of the {len(wanted)} stays in the list of --stays passes the rules of the cohort; it "
                "must list the stay_id of icustays"
            )
    no_contradictions = pl.DataFrame(schema={"finding": pl.String, "stays": pl.Int64})
    contradictions = count_contradictions(stays) if is_corrected else no_contradictions
    return Cohort(_select_columns(stays, subject_lists), pl.DataFrame(attrition), contradictions)


def _number_episodes(stays: pl.DataFrame) -> pl.DataFrame:
    """Sort the stays by subject and time, and add the number of each among those of its subject."""
    stays = stays.sort("subject_id", "intime", "outtime", "stay_id")
    number = pl.int_range(1, pl.len() + 1).over("subject_id").cast(pl.Int32)
    return stays.with_columns(episode=number)


def _select_columns(stays: pl.DataFrame, subject_lists: SubjectLists) -> pl.DataFrame:
    """Add the split of each stay, and keep the columns of the store."""
    subjects = stays["subject_id"].unique(maintain_order=True)
    splits = pl.DataFrame({"subject_id": subjects, "split": split_subjects(subjects, *subject_lists)})
    stays = stays.join(splits, on="subject_id", how="left", maintain_order="left")
    return stays.select(
        "subject_id", "hadm_id", "stay_id", "episode", "split",
        "intime", "outtime", "admittime", "dischtime", "deathtime", "dod", "age", "anchor_age",
        "anchor_year_group", "^admission_type$", "last_careunit",
        pl.col("gender").alias("sex"),
        "race", "los_hours", "death_hours", "^death_hour_known$", "mortality", "readmission",
    )  # fmt: skip
