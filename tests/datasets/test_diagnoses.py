"""Spelling of diagnosis codes, codes that no table knows, and labels of admissions."""

import re
from dataclasses import replace
from pathlib import Path

import pandas as pd
import polars as pl
import pytest

from datasets.conditions import conditions, icd9_groups
from datasets.diagnoses import condition_labels, describe_unmatched, normalize_codes, unmatched_codes
from datasets.extract_config import ExtractConfig
from datasets.extraction import extract
from tests.raw_tables import chart, write_mimic_iv

SEPSIS = "Septicemia (except in labor)"


def diagnoses(*rows: tuple[str | None, int | None], hadm: int = 11) -> pl.DataFrame:
    schema = {"hadm_id": pl.Int64, "icd_code": pl.String, "icd_version": pl.Int64}
    return pl.DataFrame([(hadm, *row) for row in rows], schema, orient="row")


def labels(*rows: tuple[str | None, int | None], protocol: str = "corrected") -> pl.DataFrame:
    return condition_labels(normalize_codes(diagnoses(*rows)), [11], protocol)


@pytest.mark.parametrize("version", [11, 0, None])
def test_a_code_of_no_known_version_is_an_error(version: int | None) -> None:
    with pytest.raises(ValueError, match=r"1 codes are neither ICD-9 nor ICD-10 .*admission 11"):
        normalize_codes(diagnoses(("99592", 9), ("99592", version)))


def test_a_diagnosis_without_a_code_is_none() -> None:
    with_one = labels(("99592", 9), (None, 10), (None, None), (" ", 10))
    assert with_one.equals(labels(("99592", 9))) and with_one[SEPSIS].item() == 1


def test_an_admission_without_diagnoses_has_no_condition() -> None:
    table = condition_labels(normalize_codes(diagnoses(("99592", 9))), [11, 12], "medmod")
    assert table["hadm_id"].to_list() == [11, 12] and sum(table.row(1)[1:]) == 0


@pytest.mark.parametrize(
    ("spelling", "version", "code"),
    [
        ("I50.9", 10, "I509"),
        ("i50.9 ", 10, "I509"),
        (" I50 9", 10, "I509"),
        ("428.0", 9, "4280"),
        ("38.9", 9, "0389"),
        ("8.45", 9, "00845"),
        ("V45.81", 9, "V4581"),
        ("E812.0", 9, "E8120"),
        ("389", 9, "0389"),
        ("4111", 9, "4111"),  # 411.1, or 041.11 without its zero: the code that it is stays
        ("845", 9, "845"),  # 008.45 or 084.5
        ("4280", 9, "4280"),
        ("007", 10, "007"),
    ],
)
def test_dots_blanks_small_letters_and_lost_zeros_are_mended(spelling: str, version: int, code: str) -> None:
    assert normalize_codes(diagnoses((spelling, version)))["icd_code"].to_list() == [code]


def test_every_code_of_the_release_stays_as_it_is() -> None:
    codes = sorted(icd9_groups())
    assert normalize_codes(diagnoses(*((c, 9) for c in codes)))["icd_code"].to_list() == codes


@pytest.mark.parametrize("protocol", ["medmod", "corrected"])
def test_labels_do_not_depend_on_the_spelling(protocol: str) -> None:
    plain = labels(("4280", 9), ("0389", 9), ("I2510", 10), ("E1122", 10), protocol=protocol)
    dotted = labels(("428.0", 9), ("38.9", 9), ("I25.10", 10), ("e11.22", 10), protocol=protocol)
    assert plain.equals(dotted) and sum(plain.row(0)[1:]) == (4 if protocol == "corrected" else 3)


def test_codes_outside_the_tables_are_counted_and_named() -> None:
    rows = [("I4811", 10), ("I4811", 10), ("U071", 10), ("389", 9), *[("4280", 9)] * 9]
    unmatched = unmatched_codes(normalize_codes(diagnoses(*rows)))
    columns = ["icd_code", "diagnoses", "source", "ccs"]
    assert unmatched.select(columns).rows() == [
        ("I4811", 2, "prefix", "106"),
        ("U071", 1, "unknown", None),
        ("0389", 1, "zeros restored", "2"),
    ]
    text = "\n".join(describe_unmatched(unmatched))
    assert "2 rows (I4811) are not in HCUP's table, and placed by the longest prefix" in text
    assert "1 rows (U071) are in no table: no condition" in text
    assert "1 rows (0389) lost leading zeros, which are restored" in text


def test_at_most_ten_codes_are_named() -> None:
    rows = [(f"U{n}", 10) for n in range(12)] + [("4280", 9)] * 20
    (line,) = describe_unmatched(unmatched_codes(normalize_codes(diagnoses(*rows))))
    assert line.count(", U") == 9 and "and 2 more" in line


@pytest.mark.parametrize(("known", "stops"), [(1, True), (2, False)])
def test_an_extraction_in_which_most_codes_are_unknown_stops(
    tmp_path: Path, known: int, stops: bool, capsys: pytest.CaptureFixture
) -> None:
    codes = ["NOCODE1", "NOCODE2", *["4280"] * known]
    rows = [
        {"subject_id": 1, "hadm_id": 11, "seq_num": n, "icd_code": code, "icd_version": 9}
        for n, code in enumerate(codes)
    ]
    write_mimic_iv(tmp_path / "iv", diagnoses_icd=rows, chartevents=[chart(220045, 80)])
    config = ExtractConfig(tmp_path / "iv", tmp_path / "store")
    if stops:
        with pytest.raises(ValueError, match=re.escape("2 of 3 codes are in no table of ICD-9 or ICD-10")):
            extract(config)
        return
    extract(config)
    assert pd.read_csv(config.out / "unmatched_codes.csv")["icd_code"].tolist() == ["NOCODE1", "NOCODE2"]
    assert "2 rows (NOCODE1, NOCODE2) are in no table" in capsys.readouterr().out
    extract(replace(config, protocol="corrected", out=tmp_path / "other"))


def test_every_condition_is_a_column() -> None:
    assert labels(("4280", 9)).columns == ["hadm_id", *(c.title for c in conditions())]
