"""Codes to conditions."""

from pathlib import Path

import polars as pl
import pytest

from datasets.conditions import conditions, find_group, groups_of, icd10_groups
from tools.ccs_table import read_source, source_path

SHARED = Path(__file__).parents[3] / "shared"


def test_titles_are_in_alphabetical_order_and_groups_are_complete() -> None:
    titles = [c.title for c in conditions()]
    assert titles == sorted(titles) and len(titles) == 25
    assert sorted(c.group for c in conditions()).count("mixed") == 5


@pytest.mark.parametrize(
    ("code", "version", "medmod", "corrected"),
    [
        ("41071", 9, {"100"}, {"100"}),
        ("I214", 10, {"100"}, {"100"}),
        ("I219", 10, set(), {"100"}),
        ("I10", 10, {"98"}, {"98"}),
        ("E785", 10, {"53"}, {"53"}),
        ("E7801", 10, {"53"}, {"53"}),
        ("J80", 10, set(), {"131"}),
        ("I2510", 10, {"101"}, {"101"}),
        ("J440", 10, {"127"}, {"127"}),
        ("J441", 10, {"127"}, {"127"}),
        ("J129", 10, {"122"}, {"122"}),
        ("J860", 10, {"130"}, {"130"}),
        ("E1110", 10, set(), {"50"}),
        ("I161", 10, set(), {"99"}),
        ("T8141XA", 10, set(), {"238"}),
        ("E1122", 10, set(), {"50"}),  # combines diabetes and kidney disease
        ("I130", 10, {"99"}, {"99"}),  # combines hypertension, heart failure and kidney disease
        ("Z999", 10, set(), set()),
    ],
)
def test_codes(code: str, version: int, medmod: set[str], corrected: set[str]) -> None:
    benchmark = {c.ccs for c in conditions()}
    assert groups_of(code, version, "medmod") & benchmark == medmod
    assert groups_of(code, version, "corrected") & benchmark == corrected


def test_every_code_of_hcups_table_has_its_category_and_no_other_code_is_in_ours() -> None:
    table = read_source(source_path())
    assert len(table) == 72_446
    assert icd10_groups() == table
    assert {code: groups_of(code, 10, "corrected") for code in table} == {
        code: frozenset([ccs]) for code, ccs in table.items()
    }


@pytest.mark.parametrize(
    ("code", "ccs", "source"),
    [
        ("I4811", "106", "prefix"),  # of 2020: permanent atrial fibrillation
        ("E8720", "55", "prefix"),  # of 2023: acidosis
        ("I50", "108", "prefix"),  # a category instead of a code
        ("D75838", None, "ambiguous"),
        ("U071", None, "unknown"),  # COVID-19
        ("I", None, "unknown"),
        ("", None, "unknown"),
    ],
)
def test_a_code_younger_than_the_table_takes_the_category_of_its_longest_known_prefix(
    code: str, ccs: str | None, source: str
) -> None:
    assert find_group(code, 10) == (ccs, source)


def test_a_code_is_matched_with_its_version() -> None:
    assert groups_of("E8120", 9, "medmod") != groups_of("E8120", 10, "corrected")
    assert find_group("E8120", 9).source == "table" and find_group("I2510", 9).source == "unknown"


@pytest.mark.skipif(not (SHARED / "mimic-iv-demo").exists(), reason="the MIMIC-IV demo is not here")
def test_the_conditions_of_the_demo_are_those_of_hcups_tables() -> None:
    from datasets.diagnoses import condition_labels, normalize_codes
    from datasets.raw.reading import read_table

    names = ("icustays", "diagnoses_icd")
    stays, diagnoses = (read_table(SHARED / "mimic-iv-demo", name) for name in names)
    admissions = stays["hadm_id"].unique()
    labels = condition_labels(normalize_codes(diagnoses), admissions, "corrected")
    table = read_source(source_path())
    by_code = diagnoses.filter(pl.col("icd_version") == 10).with_columns(
        ccs=pl.col("icd_code").str.strip_chars().replace_strict(table, default=None)
    )
    for condition in conditions():
        expected = set(by_code.filter(pl.col("ccs") == condition.ccs)["hadm_id"]) & set(admissions)
        positive = set(labels.filter(pl.col(condition.title) == 1)["hadm_id"])
        with_icd10 = set(by_code["hadm_id"])
        assert positive & with_icd10 == expected
