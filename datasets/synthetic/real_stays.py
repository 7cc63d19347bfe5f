"""ICU stays of a real release or store, as patients to draw synthetic X-rays for."""

from pathlib import Path

import numpy as np
import polars as pl

from datasets.raw.reading import read_table
from datasets.store import Store
from datasets.synthetic.common import HISTORY, random_stream, with_row_number
from datasets.synthetic.latents import SEVERITY_CORRELATION, Simulation, draw_latents
from datasets.synthetic.patients import PATIENTS_PER_BLOCK, Block, course_of

TIMES = ("intime", "outtime", "admittime", "dischtime", "deathtime")
COLUMNS = ("subject_id", "hadm_id", "stay_id", *TIMES)


def read_stays(source: Path) -> pl.DataFrame:
    """Read the ICU stays of a raw MIMIC-IV folder or a store: ids, and times in seconds since 1970.

    Raises:
        ValueError: `source` is neither, or has no stay.
    """
    if (source / "stays.parquet").exists():
        stays = pl.from_pandas(Store.open(source).stays(COLUMNS))
    else:
        admissions = read_table(source, "admissions")
        admissions = admissions.select("hadm_id", "admittime", "dischtime", "deathtime")
        stays = read_table(source, "icustays").join(admissions, on="hadm_id").select(COLUMNS)
    stays = stays.drop_nulls(TIMES[:-1]).sort("subject_id", "intime", "stay_id")
    if stays.is_empty():
        raise ValueError(
            f"{source}: no ICU stay has all its times; give a raw MIMIC-IV folder or a finished store"
        )
    return stays.with_columns(pl.col(TIMES).dt.epoch("s"))


def block_of_stays(
    seed: int, block: int, stays: pl.DataFrame, subjects: pl.Series, simulation: Simulation
) -> Block:
    """Return the stays of some subjects as a block, with latent states by chance.

    Severity alone is not all chance: it is higher in admissions that ended in death.
    """
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
