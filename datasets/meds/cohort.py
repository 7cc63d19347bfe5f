"""The cohort's tables of a release of MIMIC-IV, from the records of a MEDS dataset."""

from dataclasses import dataclass, field

import polars as pl

DAY = pl.duration(days=1)


@dataclass(frozen=True)
class Notes:
    """What a store's manifest says of the MEDS dataset that it was made from.

    `lost` names what the release of MIMIC-IV has and the dataset has not, `refused` the tasks that therefore
    have no samples, with the reason.
    """

    mapping: str
    lost: list[str]
    refused: dict[str, str] = field(default_factory=dict)


def cohort_tables(records: pl.DataFrame, has_hadm_id: bool, has_stay_id: bool) -> dict[str, pl.DataFrame]:
    """Return icustays, admissions, patients and diagnoses_icd, with the columns of the release.

    Args:
        records: subject_id, time, role, value, version, hadm_id, stay_id and race of the rows that have a
            role in the cohort, by subject and time.
        has_hadm_id: Whether the dataset names admissions; else they are numbered, and a row belongs to the
            last one of its subject that began before it.
        has_stay_id: Whether it names ICU stays; else they are numbered, and the next discharge ends each.
    """
    of = {str(role): rows for (role,), rows in records.partition_by("role", as_dict=True).items()}
    empty = records.clear()
    admitted = of.get("hospital_admission", empty)
    if not has_hadm_id:
        admitted = admitted.with_columns(hadm_id=pl.int_range(1, pl.len() + 1))

    def rows(role: str) -> pl.DataFrame:
        found = of.get(role, empty)
        return found if has_hadm_id else _with_admission(found, admitted)

    patients = _patients(records, of, empty)
    left = rows("hospital_discharge").select("hadm_id", dischtime="time", discharge_location="value")
    races = rows("race").select("subject_id", "hadm_id", race_code="value").drop_nulls("race_code")
    of_subject = races.filter(pl.col("hadm_id").is_null()).select("subject_id", race_of_subject="race_code")
    admissions = (
        _one_each(admitted.drop_nulls("hadm_id"), "hadm_id")
        .select("subject_id", "hadm_id", "race", admittime="time", admission_type="value")
        .join(_one_each(left, "hadm_id"), on="hadm_id", how="left", maintain_order="left")
        .join(_one_each(races.drop("subject_id"), "hadm_id"), on="hadm_id", how="left", maintain_order="left")
        .join(_one_each(of_subject, "subject_id"), on="subject_id", how="left", maintain_order="left")
        .with_columns(
            race=pl.coalesce("race_code", "race", "race_of_subject"),
            hospital_expire_flag=pl.lit(None, pl.Int64),
        )
    )
    deaths = _with_admission(_one_each(of.get("death", empty), "subject_id"), admitted)
    diagnoses = rows("diagnosis").drop_nulls("hadm_id")
    return {
        "icustays": _stays(rows("icu_admission"), rows("icu_discharge"), has_stay_id),
        "admissions": _with_death(admissions, deaths).drop("race_code", "race_of_subject"),
        "patients": patients,
        "diagnoses_icd": diagnoses.select(
            "subject_id", "hadm_id", seq_num=pl.lit(None, pl.Int64), icd_code="value", icd_version="version"
        ),
    }


def _one_each(rows: pl.DataFrame, key: str) -> pl.DataFrame:
    return rows.unique(key, keep="first", maintain_order=True)


def _with_admission(rows: pl.DataFrame, admitted: pl.DataFrame) -> pl.DataFrame:
    """Set hadm_id to that of the subject's last admission that began before each row, or with it."""
    begun = admitted.select("subject_id", "time", "hadm_id").drop_nulls().sort("subject_id", "time")
    rows = rows.drop("hadm_id").with_row_index("place").sort("subject_id", "time")
    joined = rows.join_asof(begun, on="time", by="subject_id", check_sortedness=False)
    return joined.sort("place").drop("place")


def _stays(admitted: pl.DataFrame, left: pl.DataFrame, has_stay_id: bool) -> pl.DataFrame:
    """Return icustays; one without a discharge has neither outtime nor los."""
    if has_stay_id:
        ends = _one_each(left.drop_nulls("stay_id"), "stay_id").select(
            "stay_id", outtime="time", last="value"
        )
        stays = _one_each(admitted.drop_nulls("stay_id"), "stay_id")
        stays = stays.join(ends, on="stay_id", how="left", maintain_order="left")
    else:
        following = [pl.col(name).shift(-1).over("subject_id") for name in ("role", "time", "value")]
        stays = pl.concat([admitted, left]).sort("subject_id", "time", "role", maintain_order=True)
        stays = stays.with_columns(
            next_role=following[0],
            outtime=following[1],
            last=following[2],
            stay_id=pl.int_range(1, pl.len() + 1),
        ).filter(pl.col("role") == "icu_admission")
        is_paired = pl.col("next_role") == "icu_discharge"
        stays = stays.with_columns(pl.when(is_paired).then(name).alias(name) for name in ("outtime", "last"))
    first = pl.col("value").fill_null("unknown")
    last = pl.when(pl.col("outtime").is_null()).then(first).otherwise(pl.col("last").fill_null("unknown"))
    return stays.select(
        "subject_id",
        "hadm_id",
        "stay_id",
        first_careunit=first,
        last_careunit=last,
        intime="time",
        outtime="outtime",
        los=(pl.col("outtime") - pl.col("time")).dt.total_microseconds() / 8.64e10,
    )


def _patients(records: pl.DataFrame, of: dict[str, pl.DataFrame], empty: pl.DataFrame) -> pl.DataFrame:
    """Return patients; the anchor is the year of birth, in which a patient is 0 years old."""
    sex = of.get("sex", empty).select("subject_id", gender="value")
    birth = of.get("birth", empty).select("subject_id", anchor_year=pl.col("time").dt.year().cast(pl.Int64))
    death = of.get("death", empty).select("subject_id", dod=pl.col("time").dt.truncate("1d"))
    patients = records.select(pl.col("subject_id").unique(maintain_order=True))
    for part in (sex, birth, death):
        patients = patients.join(
            _one_each(part, "subject_id"), on="subject_id", how="left", maintain_order="left"
        )
    return patients.with_columns(anchor_age=pl.lit(0, pl.Int64), anchor_year_group=pl.lit(None, pl.String))


def _with_death(admissions: pl.DataFrame, deaths: pl.DataFrame) -> pl.DataFrame:
    """Add deathtime: a death with an hour belongs to the last admission before it, up to a day after its end.

    A death at midnight is a day without an hour, as MIMIC's `dod` is.
    """
    timed = deaths.filter(pl.col("time") != pl.col("time").dt.truncate("1d")).drop_nulls("hadm_id")
    timed = timed.select("hadm_id", deathtime="time")
    joined = admissions.join(timed, on="hadm_id", how="left", maintain_order="left")
    is_in_time = pl.col("deathtime") <= pl.col("dischtime") + DAY
    return joined.with_columns(deathtime=pl.when(is_in_time).then("deathtime"))


def describe(
    stays: pl.DataFrame, diagnoses: int, mapping: str, lab_time: str, has_hadm_id: bool, has_stay_id: bool
) -> Notes:
    """Say what a dataset has lost, given its cohort as `select_stays` returns it, and its diagnoses' number.

    Decompensation asks at each hour who dies within the next 24: it is refused if less than half of the
    deaths in hospital have an hour. Phenotyping is refused without any diagnosis.
    """
    died = stays.filter(pl.col("mortality") == 1)
    timed = int(died["deathtime"].is_not_null().sum())
    hours = f"{timed} of {len(died)} deaths in hospital have an hour"
    other = {"storetime": "charttime", "charttime": "storetime"}[lab_time]
    lost = [
        f"{other} of laboratory values: their time is the {lab_time}",
        "float64: numbers are float32, and are read as their shortest text",
        "anchor_year_group: dates are shifted, so that no year is known and --split_by year is refused",
        "anchor_age: age is the year of ICU admission less the year of birth",
        f"deathtime and dod: one time tells both; {hours}",
        "hospital_expire_flag: the place of discharge and the time of death say who died",
        "seq_num: diagnoses are in the order of the rows",
        *([] if has_hadm_id else ["hadm_id: a row belongs to the admission in which its time lies"]),
        *([] if has_stay_id else ["stay_id: the next ICU discharge of the subject ends a stay"]),
    ]
    refused = {}
    if 2 * timed < len(died):
        refused["decompensation"] = f"it needs the hour of death, and {hours}"
    if not diagnoses:
        refused["phenotyping"] = "it needs diagnoses, and no admission of the cohort has any"
    return Notes(mapping, lost, refused)
