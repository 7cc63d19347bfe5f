"""Codes to conditions."""

from pathlib import Path

import polars as pl
import pytest

from datasets.cohort import select_stays
from datasets.conditions import conditions, find_group, groups_of, icd9_groups, icd10_groups
from datasets.diagnoses import condition_labels, normalize_codes
from datasets.raw.reading import read_table
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


DEMO = SHARED / "mimic-iv-demo"
PROTOCOL_PAGE = Path(__file__).parents[2] / "docs/protocol.md"


def documented_positives() -> list[list[int]]:
    """Return the columns medmod, corrected and HCUP of the condition table of docs/protocol.md."""
    section = PROTOCOL_PAGE.read_text().split("## Conditions")[1].split("\n## ")[0]
    rows = [line.strip("|").split("|") for line in section.splitlines() if line.startswith("|")]
    return [[int(cell) for cell in row[1:4]] for row in rows if row[1].strip().isdigit()]


@pytest.mark.skipif(not DEMO.exists(), reason="the MIMIC-IV demo (../shared/mimic-iv-demo) is not here")
def test_the_positives_of_the_demo_are_those_of_hcups_tables_and_of_the_protocol_page() -> None:
    names = ("icustays", "admissions", "patients", "diagnoses_icd")
    icustays, admissions, patients, diagnoses = (read_table(DEMO, name) for name in names)
    hadm_id = select_stays(icustays, admissions, patients, "medmod").stays["hadm_id"]
    codes = normalize_codes(diagnoses)
    counts = [condition_labels(codes, hadm_id, protocol) for protocol in ("medmod", "corrected")]
    hcup = {9: icd9_groups(), 10: read_source(source_path())}
    rows = diagnoses.filter(pl.col("hadm_id").is_in(hadm_id.implode()))
    rows = rows.select("hadm_id", "icd_code", "icd_version")
    by_table = {(hadm, hcup[version].get(code.strip())) for hadm, code, version in rows.iter_rows()}
    positives = [
        [*(int(table[c.title].sum()) for table in counts), sum(ccs == c.ccs for _, ccs in by_table)]
        for c in conditions()
    ]
    assert positives == documented_positives()
    assert all(corrected == by_hcup for _, corrected, by_hcup in positives)
    coronary = next(number for number, c in enumerate(conditions()) if c.ccs == "101")
    assert positives[coronary] == [32, 34, 34]
