"""Who died, and when: the flag, times and places of MIMIC-IV put together, for the protocol `corrected`.

docs/protocol.md ("Deaths") has the rules in words.
"""

import polars as pl

DAY = pl.duration(days=1)
PLACES_OF_DEATH = ("DIED", "DEAD/EXPIRED", "EXPIRED")  # in MIMIC-IV, MIMIC-III and eICU


def mend_discharges(admissions: pl.DataFrame, icustays: pl.DataFrame) -> pl.DataFrame:
    """Replace discharges before the admission or its first ICU stay, and add `discharge_mended`.

    The latest of the end of the last ICU stay and the time of death takes their place.
    """
    times = icustays.group_by("hadm_id").agg(first_intime=pl.min("intime"), last_outtime=pl.max("outtime"))
    discharge = pl.col("dischtime")
    is_early = discharge < pl.max_horizontal("admittime", "first_intime")
    mended = admissions.join(times, on="hadm_id", how="left", maintain_order="left").with_columns(
        discharge_mended=is_early.fill_null(False)
    )
    end = pl.max_horizontal("last_outtime", "deathtime")
    return mended.with_columns(dischtime=pl.when("discharge_mended").then(end).otherwise("dischtime")).drop(
        "first_intime", "last_outtime"
    )


def died_in_hospital() -> pl.Expr:
    """Return whether admissions ended in death: their flag, or else a time or place of death."""
    by_record = pl.col("deathtime").is_not_null() | _is_place_of_death()
    return pl.coalesce(pl.col("hospital_expire_flag") == 1, by_record)


def _is_place_of_death() -> pl.Expr:
    return pl.col("discharge_location").str.to_uppercase().is_in(PLACES_OF_DEATH).fill_null(False)


def _is_midnight(column: str) -> pl.Expr:
    return pl.col(column) == pl.col(column).dt.truncate("1d")


def deaths_of_subjects(admissions: pl.DataFrame, patients: pl.DataFrame) -> pl.DataFrame:
    """Return when each subject died, as well as it is known.

    The first of these decides: a time of death with an hour; one at midnight, which is read as a day; the day
    on which an admission ended in death (dod if it lies in the admission, else the day of discharge); dod.

    Args:
        admissions: As `mend_discharges` returns them.
        patients: subject_id and dod.

    Returns:
        subject_id, `death` and `death_end` (the earliest and the latest moment) and `death_hour_known`.
    """
    joined = admissions.join(patients.select("subject_id", "dod"), on="subject_id", how="left")
    timed = joined.drop_nulls("deathtime")
    day_of_dod = pl.col("dod").dt.truncate("1d")
    is_in_admission = day_of_dod.is_between(
        pl.col("admittime").dt.truncate("1d"), pl.col("dischtime").dt.truncate("1d") + DAY
    )
    flagged_day = pl.when(is_in_admission).then(day_of_dod).otherwise(pl.col("dischtime").dt.truncate("1d"))
    sources = [
        timed.filter(~_is_midnight("deathtime")).select("subject_id", death="deathtime"),
        timed.filter(_is_midnight("deathtime")).select("subject_id", death="deathtime"),
        joined.filter(died_in_hospital()).select("subject_id", death=flagged_day),
        patients.select("subject_id", death=day_of_dod),
    ]
    ranked = pl.concat(frame.with_columns(rank=pl.lit(rank)) for rank, frame in enumerate(sources))
    best = ranked.drop_nulls("death").sort("rank", "death").unique("subject_id", keep="first")
    is_known = pl.col("rank") == 0
    return best.select(
        "subject_id",
        "death",
        death_end=pl.when(is_known).then("death").otherwise(pl.col("death") + DAY),
        death_hour_known=is_known,
    )


def is_after_death() -> pl.Expr:
    """Return whether stays, joined with `deaths_of_subjects`, certainly begin after the subject's death."""
    begins_later = pl.when("death_hour_known").then(pl.col("intime") > pl.col("death"))
    return begins_later.otherwise(pl.col("intime") >= pl.col("death_end")).fill_null(False)


def add_deaths(stays: pl.DataFrame) -> pl.DataFrame:
    """Add `mortality`, and `death_hours`: the earliest moment of death in hours since intime, 0 at least.

    Where only the day is known, this is the beginning of the day, or a later discharge alive on it.
    """
    left_alive = ~died_in_hospital() & (pl.col("dischtime") < pl.col("death_end"))
    is_later = ~pl.col("death_hour_known") & left_alive
    earliest = pl.when(is_later).then(pl.max_horizontal("death", "dischtime")).otherwise("death")
    hours = (earliest - pl.col("intime")).dt.total_microseconds() / 3.6e9
    return stays.with_columns(
        mortality=died_in_hospital().cast(pl.Int8),
        death_hours=pl.max_horizontal(hours, pl.when(hours.is_not_null()).then(0.0)),
        death_hour_known=pl.col("death_hour_known").fill_null(False),
    )


def has_died() -> pl.Expr:
    """Return whether the patient of a stay died in it or in its admission, whatever the flag says."""
    in_stay = pl.col("death_hour_known") & (pl.col("death") <= pl.col("outtime"))
    return (pl.col("mortality") == 1) | pl.col("deathtime").is_not_null() | in_stay.fill_null(False)


def count_contradictions(stays: pl.DataFrame) -> pl.DataFrame:
    """Return how many of the cohort's stays have records of death that do not agree: finding, stays."""
    flag = pl.col("hospital_expire_flag")
    timed = pl.col("deathtime").is_not_null()
    day = pl.col("deathtime").dt.date()
    findings = {
        "hospital_expire_flag 1, discharged to another place than death": (flag == 1)
        & pl.col("discharge_location").is_not_null()
        & ~_is_place_of_death(),
        "hospital_expire_flag 1, no deathtime": (flag == 1) & ~timed,
        "hospital_expire_flag 0, with a deathtime": (flag == 0) & timed,
        "hospital_expire_flag 0, discharge_location DIED": (flag == 0) & _is_place_of_death(),
        "hospital_expire_flag 0, dod before the day of discharge": (flag == 0)
        & (pl.col("dod") < pl.col("dischtime").dt.truncate("1d")),
        "deathtime and dod on different days": day != pl.col("dod").dt.date(),
        "deathtime at midnight, read as a day": timed & _is_midnight("deathtime"),
        "deathtime after discharge": pl.col("deathtime") > pl.col("dischtime"),
        "deathtime before the end of the ICU stay": pl.col("deathtime") < pl.col("outtime"),
        "discharge before admission, mended": pl.col("discharge_mended"),
    }
    counts = stays.select(expression.sum().alias(name) for name, expression in findings.items()).row(0)
    return pl.DataFrame({"finding": list(findings), "stays": [int(count or 0) for count in counts]})
