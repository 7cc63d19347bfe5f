"""Which ICU stays are in, why the others are not, and what became of the patient."""

from collections.abc import Iterable
from dataclasses import dataclass

import polars as pl

from datasets.conditions import conditions, groups_of
from datasets.raw import unique
from datasets.splits import split_subjects

READMISSION_DAYS = 30
LONGEST_STAY = 1000 * 24.0  # hours; a longer one is a mistaken time


@dataclass(frozen=True)
class Cohort:
    """`stays`: a row a stay, ordered by subject and admission to the ICU; `attrition`: a row a rule."""

    stays: pl.DataFrame
    attrition: pl.DataFrame


def _counts(stays: pl.DataFrame, rule: str) -> dict[str, str | int]:
    ids = {"stays": "stay_id", "admissions": "hadm_id", "subjects": "subject_id"}
    return {"rule": rule, **{name: stays[key].n_unique() for name, key in ids.items()}}


def _hours(later: str, earlier: str) -> pl.Expr:
    return (pl.col(later) - pl.col(earlier)).dt.total_microseconds() / 3.6e9


def _has_length() -> pl.Expr:
    """Is `los` a number of hours that a stay can have, and (to the hour) that from intime to outtime?"""
    los = pl.col("los_hours")
    return los.is_between(0, LONGEST_STAY, closed="right") & ((los - _hours("outtime", "intime")).abs() < 1)


def _within_admission(column: str) -> pl.Expr:
    return pl.col(column).is_between("admittime", "dischtime").fill_null(False)


def _outcomes(stays: pl.DataFrame, protocol: str) -> pl.DataFrame:
    """Add age, LOS, in-hospital mortality and the time of death."""
    year = pl.col("anchor_age") + pl.col("intime").dt.year() - pl.col("anchor_year")
    return stays.with_columns(
        age=pl.col("anchor_age") if protocol == "medmod" else year.cast(pl.Int64),
        los_hours=24 * pl.col("los"),
        mortality=(_within_admission("dod") | _within_admission("deathtime")).cast(pl.Int8),
        death_hours=_hours("deathtime", "intime"),
    )


def readmissions(stays: pl.DataFrame, later: pl.DataFrame) -> pl.DataFrame:
    """Add `readmission`: does one of the `later` stays of the subject begin within 30 days of outtime?"""
    pairs = stays.select("subject_id", "stay_id", "intime", "outtime").join(
        later.select("subject_id", other="stay_id", next="intime"), on="subject_id"
    )
    gap = pl.col("next") - pl.col("outtime")
    again = pairs.filter(
        pl.col("other") != pl.col("stay_id"),
        pl.col("next") > pl.col("intime"),
        gap.is_between(pl.duration(days=0), pl.duration(days=READMISSION_DAYS)),
    )["stay_id"]
    return stays.with_columns(readmission=pl.col("stay_id").is_in(again.unique().implode()).cast(pl.Int8))


def select_stays(
    icustays: pl.DataFrame,
    admissions: pl.DataFrame,
    patients: pl.DataFrame,
    protocol: str,
    subjects: tuple[frozenset[int] | None, frozenset[int] | None] = (None, None),
) -> Cohort:
    """Apply the cohort rules in their order, counting what each leaves.

    Raises:
        ValueError: an id that should be unique is not, or no stay is left.
    """
    stays = unique(icustays, ["stay_id"], "icustays")
    steps = [_counts(stays, "all ICU stays")]

    def keep(rule: str, kept: pl.DataFrame) -> pl.DataFrame:
        steps.append(_counts(kept, rule))
        return kept

    stays = keep(
        "no transfer between units", stays.filter(pl.col("first_careunit") == pl.col("last_careunit"))
    )
    stays = stays.join(unique(admissions, ["hadm_id"], "admissions").drop("subject_id"), on="hadm_id")
    stays = keep(
        "admission and patient known",
        stays.join(unique(patients, ["subject_id"], "patients"), on="subject_id"),
    )
    stays = keep("one ICU stay in the admission", stays.filter(pl.len().over("hadm_id") == 1))
    stays = _outcomes(stays, protocol)
    stays = keep("age 18 or more", stays.filter(pl.col("age") >= 18))
    stays = keep("length of stay known and positive", stays.filter(_has_length()))
    if not len(stays):
        table = "; ".join(f"{s['rule']}: {s['stays']}" for s in steps)
        sizes = f"{len(icustays)} icustays, {len(admissions)} admissions and {len(patients)} patients"
        raise ValueError(
            f"the cohort is empty: of {sizes} no ICU stay passes the rules ({table}); is this a MIMIC-IV "
            "release?"
        )
    stays = readmissions(stays, stays if protocol == "medmod" else icustays)
    stays = _described(stays, subjects)
    return Cohort(stays, pl.DataFrame(steps))


def _described(
    stays: pl.DataFrame, subjects: tuple[frozenset[int] | None, frozenset[int] | None]
) -> pl.DataFrame:
    """Order the stays, number each subject's episodes, give each its split, and keep the columns of the
    store.
    """
    stays = stays.sort("subject_id", "intime", "outtime", "stay_id")
    names = stays["subject_id"].unique(maintain_order=True)
    splits = pl.DataFrame({"subject_id": names, "split": split_subjects(names, *subjects)})
    return stays.join(splits, on="subject_id", how="left", maintain_order="left").select(
        "subject_id",
        "hadm_id",
        "stay_id",
        episode=pl.int_range(1, pl.len() + 1).over("subject_id").cast(pl.Int32),
        split="split",
        intime="intime",
        outtime="outtime",
        admittime="admittime",
        dischtime="dischtime",
        deathtime="deathtime",
        dod="dod",
        age="age",
        sex="gender",
        race="race",
        los_hours="los_hours",
        death_hours="death_hours",
        mortality="mortality",
        readmission="readmission",
    )


def condition_labels(diagnoses: pl.DataFrame, admissions: Iterable[int], protocol: str) -> pl.DataFrame:
    """Diagnoses (hadm_id, icd_code, icd_version) -> one row an admission: hadm_id and an Int8 column a
    condition.

    Raises:
        ValueError: a code is of no known ICD version.
    """
    diagnoses = diagnoses.drop_nulls("icd_code")
    odd = diagnoses.filter(~pl.col("icd_version").is_in([9, 10]).fill_null(False))
    if len(odd):
        raise ValueError(
            f"diagnoses_icd: {len(odd)} codes are of neither ICD version 9 nor 10 (first: of admission "
            f"{odd['hadm_id'][0]}); use the release's file"
        )
    codes = diagnoses.select("icd_code", "icd_version").unique()
    pairs = [
        (code, version, ccs)
        for code, version in codes.iter_rows()
        for ccs in groups_of(code, version, protocol)
    ]
    schema = {"icd_code": pl.String, "icd_version": pl.Int64, "ccs": pl.String}
    found = diagnoses.join(pl.DataFrame(pairs, schema, orient="row"), on=["icd_code", "icd_version"])
    present = found.group_by("hadm_id").agg(
        [(pl.col("ccs") == c.ccs).any().cast(pl.Int8).alias(c.title) for c in conditions()]
    )
    wanted = pl.DataFrame({"hadm_id": list(admissions)}, schema={"hadm_id": pl.Int64})
    return wanted.join(present, on="hadm_id", how="left").with_columns(
        pl.col([c.title for c in conditions()]).fill_null(0)
    )
